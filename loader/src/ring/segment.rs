//! Shared-memory segments: sealed memfds and their mappings.

use std::os::fd::{AsFd, OwnedFd};
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicU32, AtomicU64};

use rustix::fs::{FallocateFlags, MemfdFlags, SealFlags};
use rustix::io::Errno;
use rustix::mm::{MapFlags, ProtFlags};

use super::error::{Error, Result};

/// A mapping of a whole memfd that nobody can shrink.
///
/// Another process may change its bytes at any time. All access goes through
/// atomics, through byte copies, or through [`slice`](Self::slice) and
/// [`slice_mut`](Self::slice_mut), whose callers answer for the ring's rules.
#[derive(Debug)]
pub(super) struct Segment {
    start: NonNull<u8>,
    bytes: usize,
    writable: bool,
}

// SAFETY: the mapping is plain memory owned by this value; it is not tied to a thread.
unsafe impl Send for Segment {}
// SAFETY: shared access is by atomics and by the contracts of the unsafe methods.
unsafe impl Sync for Segment {}

/// Who besides the daemon may write.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Access {
    /// Nobody: no writable map or write call will succeed any more.
    DaemonOnly,
    /// Whoever receives the descriptor.
    Shared,
}

impl Segment {
    /// Makes a zeroed segment: allocated and touched in full, so that no
    /// access can fail later, then sealed.
    pub(super) fn create(name: &str, bytes: usize, access: Access) -> Result<(Self, OwnedFd)> {
        let fd = rustix::fs::memfd_create(name, MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)
            .map_err(|error| Error::io("making a shared-memory file", error))?;
        rustix::fs::fallocate(&fd, FallocateFlags::empty(), 0, bytes as u64)
            .map_err(|error| Error::io("allocating shared memory", error))?;
        let segment = Self::map(&fd, bytes, true)?;
        let mut seals = SealFlags::SHRINK | SealFlags::GROW;
        if access == Access::DaemonOnly {
            seals |= SealFlags::FUTURE_WRITE;
        }
        rustix::fs::fcntl_add_seals(&fd, seals | SealFlags::SEAL)
            .map_err(|error| Error::io("sealing shared memory", error))?;
        Ok((segment, fd))
    }

    /// Maps a received descriptor, which must be sealed against shrinking: an
    /// unsealed file could be cut under us, and reading on would be a SIGBUS.
    pub(super) fn open(fd: &OwnedFd, writable: bool) -> Result<Self> {
        let seals = rustix::fs::fcntl_get_seals(fd)
            .map_err(|_| Error::malformed("shared memory", "the descriptor is not a memfd"))?;
        if !seals.contains(SealFlags::SHRINK) {
            return Err(Error::malformed(
                "shared memory",
                "not sealed against shrinking",
            ));
        }
        let size = rustix::fs::fstat(fd)
            .map_err(|error| Error::io("measuring shared memory", error))?
            .st_size;
        let bytes = usize::try_from(size).unwrap_or(0);
        if bytes < 4096 {
            return Err(Error::malformed(
                "shared memory",
                format!("{size} bytes, expected at least 4096"),
            ));
        }
        Self::map(fd, bytes, writable)
    }

    fn map(fd: &OwnedFd, bytes: usize, writable: bool) -> Result<Self> {
        let protection = if writable {
            ProtFlags::READ | ProtFlags::WRITE
        } else {
            ProtFlags::READ
        };
        // SAFETY: a fresh mapping at an address of the kernel's choice overlaps nothing of ours.
        let start = unsafe {
            rustix::mm::mmap(
                ptr::null_mut(),
                bytes,
                protection,
                MapFlags::SHARED | MapFlags::POPULATE,
                fd.as_fd(),
                0,
            )
        }
        .map_err(|error| Error::io("mapping shared memory", error))?;
        let start = NonNull::new(start.cast())
            .ok_or_else(|| Error::io("mapping shared memory", Errno::INVAL))?;
        Ok(Self {
            start,
            bytes,
            writable,
        })
    }

    /// Where it begins in this process.
    pub(super) fn address(&self) -> usize {
        self.start.as_ptr().addr()
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether `length` bytes from `at` lie inside.
    fn holds(&self, at: usize, length: usize) -> bool {
        at.checked_add(length).is_some_and(|end| end <= self.bytes)
    }

    fn word(&self, at: usize, size: usize) -> *mut u8 {
        // Offsets come from the layout, never from the other process: a miss is a bug here.
        assert!(
            self.holds(at, size) && at.is_multiple_of(size),
            "no word at {at} of {}",
            self.bytes
        );
        // SAFETY: inside the mapping, as just checked.
        unsafe { self.start.as_ptr().add(at) }
    }

    /// The 64-bit word at `at`. On a read-only mapping it must only be loaded, relaxed.
    pub(super) fn u64(&self, at: usize) -> &AtomicU64 {
        // SAFETY: in bounds and aligned (checked by `word`), valid as long as `self`; all
        // processes access these words only atomically.
        unsafe { AtomicU64::from_ptr(self.word(at, 8).cast()) }
    }

    /// The 32-bit word at `at`. On a read-only mapping it must only be loaded, relaxed.
    pub(super) fn u32(&self, at: usize) -> &AtomicU32 {
        // SAFETY: as for `u64`.
        unsafe { AtomicU32::from_ptr(self.word(at, 4).cast()) }
    }

    /// Copies `N` bytes out.
    pub(super) fn copy_out<const N: usize>(&self, at: usize) -> [u8; N] {
        let mut bytes = [0; N];
        self.copy_to(at, &mut bytes);
        bytes
    }

    /// Copies bytes out.
    pub(super) fn copy_to(&self, at: usize, to: &mut [u8]) {
        assert!(
            self.holds(at, to.len()),
            "{} bytes at {at} of {}",
            to.len(),
            self.bytes
        );
        // SAFETY: in bounds; `to` is ours alone and cannot overlap the mapping.
        unsafe { ptr::copy_nonoverlapping(self.start.as_ptr().add(at), to.as_mut_ptr(), to.len()) }
    }

    /// Copies bytes in.
    pub(super) fn copy_in(&self, at: usize, from: &[u8]) {
        assert!(
            self.writable && self.holds(at, from.len()),
            "{} bytes at {at} of {}",
            from.len(),
            self.bytes
        );
        // SAFETY: in bounds of a writable mapping; `from` cannot overlap it.
        unsafe { ptr::copy_nonoverlapping(from.as_ptr(), self.start.as_ptr().add(at), from.len()) }
    }

    /// `length` values of `T` from `at`.
    ///
    /// # Safety
    /// `T` is a plain number for which all bit patterns are valid. Nobody writes
    /// there while the slice lives.
    pub(super) unsafe fn slice<T>(&self, at: usize, length: usize) -> &[T] {
        let start = self.array::<T>(at, length);
        // SAFETY: in bounds and aligned; the rest is the caller's promise.
        unsafe { std::slice::from_raw_parts(start, length) }
    }

    /// `length` values of `T` from `at`, to be written.
    ///
    /// # Safety
    /// `T` is a plain number for which all bit patterns are valid. Nobody else reads
    /// or writes there while the slice lives.
    #[expect(clippy::mut_from_ref, reason = "disjointness is the caller's promise")]
    pub(super) unsafe fn slice_mut<T>(&self, at: usize, length: usize) -> &mut [T] {
        assert!(self.writable);
        let start = self.array::<T>(at, length);
        // SAFETY: in bounds and aligned in a writable mapping; the rest is the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(start, length) }
    }

    fn array<T>(&self, at: usize, length: usize) -> *mut T {
        let inside = length
            .checked_mul(size_of::<T>())
            .is_some_and(|bytes| self.holds(at, bytes));
        assert!(
            inside && at.is_multiple_of(align_of::<T>()),
            "no array of {length} at {at} of {}",
            self.bytes
        );
        // SAFETY: inside the mapping, as just checked.
        unsafe { self.start.as_ptr().add(at).cast() }
    }
}

impl Drop for Segment {
    fn drop(&mut self) {
        // SAFETY: exactly the range mapped by `map`; nothing borrows from `self` any more.
        let _ = unsafe { rustix::mm::munmap(self.start.as_ptr().cast(), self.bytes) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_daemon_can_write_the_data_segment() {
        let (segment, fd) = Segment::create("test", 8192, Access::DaemonOnly).unwrap();
        segment.copy_in(4096, b"bytes");

        let reader = Segment::open(&fd, false).unwrap();
        assert_eq!(&reader.copy_out::<5>(4096), b"bytes");
        let Err(Error::Io { source, .. }) = Segment::open(&fd, true) else {
            panic!("a writable map was made")
        };
        assert_eq!(source.raw_os_error(), Some(Errno::PERM.raw_os_error()));
        assert_eq!(rustix::io::pwrite(&fd, b"x", 0), Err(Errno::PERM));
        assert_eq!(rustix::fs::ftruncate(&fd, 4096), Err(Errno::PERM));
        assert_eq!(rustix::fs::ftruncate(&fd, 1 << 20), Err(Errno::PERM));
        // Re-opening by its /proc name must not help either.
        let again = std::fs::OpenOptions::new()
            .read(true)
            .write(true)
            .open(format!(
                "/proc/self/fd/{}",
                std::os::fd::AsRawFd::as_raw_fd(&fd)
            ));
        if let Ok(file) = again {
            assert!(Segment::map(&file.into(), 8192, true).is_err());
        }
        segment.copy_in(4096, b"after"); // the daemon's own map stays writable
        assert_eq!(&reader.copy_out::<5>(4096), b"after");
    }

    #[test]
    fn a_file_that_could_be_cut_is_refused() {
        let fd = rustix::fs::memfd_create("test", MemfdFlags::ALLOW_SEALING).unwrap();
        rustix::fs::ftruncate(&fd, 8192).unwrap();
        assert!(matches!(
            Segment::open(&fd, false),
            Err(Error::Malformed { .. })
        ));
        let file = tempfile::tempfile().unwrap();
        assert!(matches!(
            Segment::open(&file.into(), false),
            Err(Error::Malformed { .. })
        ));
    }
}
