//! What DDAS writes to disk and reads back.
