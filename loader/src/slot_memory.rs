//! Where the slots of a ring or of an embedded loader lie, for whoever tells a device about them.

use std::any::Any;
use std::fmt;
use std::sync::Arc;

/// The mappings that batches lie in, kept mapped as long as this value lives.
///
/// A program that registers them with a driver (page-locking them for a GPU, say) keeps this value until it has
/// unregistered them. It keeps the memory alone: consumer or loader end without it.
#[derive(Clone)]
pub struct SlotMemory {
    regions: Vec<(usize, usize)>,
    writable: bool,
    _keeper: Arc<dyn Any + Send + Sync>,
}

impl SlotMemory {
    pub(crate) fn new(
        regions: Vec<(usize, usize)>,
        writable: bool,
        keeper: Arc<dyn Any + Send + Sync>,
    ) -> SlotMemory {
        SlotMemory {
            regions,
            writable,
            _keeper: keeper,
        }
    }

    /// Address and bytes of each mapping. Every array of every batch lies within one of them.
    pub fn regions(&self) -> &[(usize, usize)] {
        &self.regions
    }

    /// Whether the pages are mapped for writing: those of an embedded loader are, those of a daemon's ring are not.
    pub fn is_writable(&self) -> bool {
        self.writable
    }
}

impl fmt::Debug for SlotMemory {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("SlotMemory")
            .field("regions", &self.regions)
            .field("writable", &self.writable)
            .finish()
    }
}
