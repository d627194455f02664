//! Names on disk: where daemons put their socket and lock, and who holds a name.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::FlockOperation;

use super::error::{Error, Result};
use super::socket;

/// Directory of daemon sockets: `$DDAS_RUNTIME_DIR`, else
/// `$XDG_RUNTIME_DIR/ddas`, else `/tmp/ddas-UID`.
pub fn runtime_dir() -> PathBuf {
    let set = |name: &str| {
        std::env::var_os(name)
            .filter(|value| !value.is_empty())
            .map(PathBuf::from)
    };
    if let Some(dir) = set("DDAS_RUNTIME_DIR") {
        return dir;
    }
    match set("XDG_RUNTIME_DIR") {
        Some(dir) => dir.join("ddas"),
        None => PathBuf::from(format!("/tmp/ddas-{}", rustix::process::geteuid().as_raw())),
    }
}

/// Names of the daemons that answer in [`runtime_dir`], sorted.
pub fn running_daemons() -> Vec<String> {
    running_in(&runtime_dir())
}

pub(super) fn running_in(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries
        .filter_map(|entry| {
            let name = entry
                .file_name()
                .into_string()
                .ok()?
                .strip_suffix(".sock")?
                .to_owned();
            socket::connect(&entry.path()).ok().map(|_| name)
        })
        .collect();
    names.sort();
    names
}

/// Refuses what cannot be the name of a daemon without looking for one, for flags.
///
/// # Errors
/// [`Error::BadName`].
pub fn check_daemon_name(name: &str) -> Result<()> {
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    if (1..=64).contains(&name.len()) && name.bytes().all(legal) && !name.starts_with('.') {
        Ok(())
    } else {
        Err(Error::BadName {
            name: name.to_owned(),
        })
    }
}

/// Path of a daemon's socket.
///
/// # Errors
/// [`Error::BadName`], or [`Error::Io`] when the path is too long for a socket.
pub(super) fn socket_path(dir: &Path, name: &str) -> Result<PathBuf> {
    check_daemon_name(name)?;
    let path = dir.join(format!("{name}.sock"));
    if path.as_os_str().len() > 107 {
        let long = std::io::Error::new(
            std::io::ErrorKind::InvalidInput,
            "path longer than 107 bytes; set DDAS_RUNTIME_DIR to a shorter one",
        );
        return Err(Error::io_at("naming the socket", &path, long));
    }
    Ok(path)
}

/// Makes the directory, for this user alone, and refuses one that others could write to.
fn prepare_dir(dir: &Path) -> Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true).mode(0o700);
    builder
        .create(dir)
        .map_err(|error| Error::io_at("making directory", dir, error))?;
    let look = |error| Error::io_at("looking at directory", dir, error);
    let metadata = fs::metadata(dir).map_err(look)?;
    // In a shared parent such as /tmp somebody else may have put a link under this name.
    let named = fs::symlink_metadata(dir).map_err(look)?;
    let user = rustix::process::geteuid().as_raw();
    let open = metadata.mode() & 0o022 != 0;
    if metadata.uid() != user || named.uid() != user || open {
        let reason = format!(
            "owned by user {} with mode {:o}; expected user {user} and no write permission for others (chmod 700)",
            metadata.uid(),
            metadata.mode() & 0o7777
        );
        let denied = std::io::Error::new(std::io::ErrorKind::PermissionDenied, reason);
        return Err(Error::io_at("using directory", dir, denied));
    }
    Ok(())
}

/// A held daemon name: the locked `NAME.lock`. Dropping it removes lock and socket.
#[derive(Debug)]
pub(super) struct HeldName {
    lock: File,
    lock_path: PathBuf,
    socket_path: PathBuf,
    /// Whether a dead daemon's socket had to be removed.
    removed_stale: bool,
}

impl HeldName {
    /// # Errors
    /// [`Error::NameHeld`] when another daemon lives, [`Error::BadName`], [`Error::Io`].
    pub(super) fn take(dir: &Path, name: &str) -> Result<Self> {
        let socket_path = socket_path(dir, name)?;
        prepare_dir(dir)?;
        let lock_path = dir.join(format!("{name}.lock"));
        let lock = loop {
            let file = OpenOptions::new()
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .mode(0o600)
                .open(&lock_path)
                .map_err(|error| Error::io_at("opening lock", &lock_path, error))?;
            match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => {}
                Err(rustix::io::Errno::WOULDBLOCK) => {
                    return Err(Error::NameHeld {
                        name: name.to_owned(),
                        pid: holder(file),
                    });
                }
                Err(error) => return Err(Error::io_at("locking", &lock_path, error)),
            }
            // A daemon that ended between our open and our lock has unlinked this very file.
            let ours = file.metadata().map(|metadata| metadata.ino());
            let named = fs::metadata(&lock_path).map(|metadata| metadata.ino());
            if matches!((ours, named), (Ok(ours), Ok(named)) if ours == named) {
                break file;
            }
        };
        let mut held = Self {
            lock,
            lock_path,
            socket_path,
            removed_stale: false,
        };
        held.write_pid()
            .map_err(|error| Error::io_at("writing", &held.lock_path, error))?;
        held.removed_stale = match fs::remove_file(&held.socket_path) {
            Ok(()) => true,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => false,
            Err(error) => {
                return Err(Error::io_at(
                    "removing the stale socket",
                    &held.socket_path,
                    error,
                ));
            }
        };
        Ok(held)
    }

    fn write_pid(&mut self) -> std::io::Result<()> {
        self.lock.set_len(0)?;
        self.lock.rewind()?;
        writeln!(self.lock, "{}", std::process::id())
    }

    pub(super) fn socket_path(&self) -> &Path {
        &self.socket_path
    }

    pub(super) fn removed_stale(&self) -> bool {
        self.removed_stale
    }
}

impl Drop for HeldName {
    fn drop(&mut self) {
        // Socket first: while the lock is held nobody else can have made a new one.
        let _ = fs::remove_file(&self.socket_path);
        let _ = fs::remove_file(&self.lock_path);
    }
}

fn holder(lock: File) -> Option<u32> {
    let mut text = String::new();
    lock.take(32).read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_has_one_holder_and_leaves_nothing_behind() {
        let parent = tempfile::tempdir().unwrap();
        let dir = parent.path().join("ddas");
        let held = HeldName::take(&dir, "train").unwrap();
        assert!(!held.removed_stale());
        assert_eq!(fs::metadata(&dir).unwrap().mode() & 0o777, 0o700);
        match HeldName::take(&dir, "train") {
            Err(Error::NameHeld { name, pid }) => {
                assert_eq!((name.as_str(), pid), ("train", Some(std::process::id())));
            }
            other => panic!("{other:?}"),
        }
        HeldName::take(&dir, "other").unwrap();
        drop(held);
        assert_eq!(fs::read_dir(&dir).unwrap().count(), 0);
        HeldName::take(&dir, "train").unwrap();
    }

    #[test]
    fn names_that_would_leave_the_directory_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["", "a/b", "..", ".hidden", "a b", "ü", &"x".repeat(65)] {
            assert!(
                matches!(HeldName::take(dir.path(), name), Err(Error::BadName { .. })),
                "{name:?}"
            );
        }
        let deep = dir.path().join("x".repeat(100));
        assert!(matches!(
            HeldName::take(&deep, "train"),
            Err(Error::Io { .. })
        ));
    }

    #[test]
    fn a_directory_that_others_can_write_to_is_refused() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o777)).unwrap();
        let error = HeldName::take(dir.path(), "train").unwrap_err().to_string();
        assert!(error.contains("777"), "{error}");
    }
}
