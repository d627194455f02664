//! Feeds trainers through shared memory.
