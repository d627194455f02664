//! Learns an augmentation policy.
