//! Stored sample to augmented pixels.
