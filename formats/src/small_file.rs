//! Reading a small file that a user names: a policy, a recipe, a list of classes.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::fs::{FileTypeExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

/// A pipe that stays silent for this long is given up.
const LONGEST_SILENCE: Duration = Duration::from_secs(5);
const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// Reads at most `limit` bytes of the file at `path`.
///
/// Named pipes (and a shell's `<(command)`) are read as well. One that nobody writes to for 5 seconds is given up,
/// where opening it in the usual way would wait for ever.
///
/// # Errors
/// What the system says; [`io::ErrorKind::TimedOut`] for a silent pipe.
///
/// ```
/// let folder = tempfile::tempdir()?;
/// let path = folder.path().join("names.txt");
/// std::fs::write(&path, "cat\ndog\n")?;
/// assert_eq!(ddas_formats::read_small_file(&path, 5)?, b"cat\nd");
/// # Ok::<(), std::io::Error>(())
/// ```
pub fn read_small_file(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    read(path, limit, LONGEST_SILENCE)
}

fn read(path: &Path, limit: u64, longest_silence: Duration) -> io::Result<Vec<u8>> {
    // Without O_NONBLOCK, opening a named pipe waits until somebody opens its other end.
    let file = File::options()
        .read(true)
        .custom_flags(rustix::fs::OFlags::NONBLOCK.bits() as i32)
        .open(path)?;
    let mut bytes = Vec::new();
    let mut file = file.take(limit);
    if !file.get_ref().metadata()?.file_type().is_fifo() {
        file.read_to_end(&mut bytes)?;
        return Ok(bytes);
    }
    let mut chunk = [0; 1 << 14];
    let mut heard = Instant::now();
    while file.limit() > 0 {
        match file.read(&mut chunk) {
            // No writer: has it gone, or not come yet?
            Ok(0) if !bytes.is_empty() => break,
            Ok(0) => {}
            Ok(count) => {
                bytes.extend_from_slice(&chunk[..count]);
                heard = Instant::now();
                continue;
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        }
        if heard.elapsed() >= longest_silence {
            let reason = format!(
                "a pipe to which nobody has written for {} s; expected a file",
                longest_silence.as_secs_f32()
            );
            return Err(io::Error::new(io::ErrorKind::TimedOut, reason));
        }
        thread::sleep(LOOK_AGAIN);
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pipe(folder: &Path) -> std::path::PathBuf {
        let path = folder.join("pipe");
        rustix::fs::mkfifoat(
            rustix::fs::CWD,
            &path,
            rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR,
        )
        .unwrap();
        path
    }

    #[test]
    fn a_pipe_is_read_until_its_writer_has_gone() {
        let folder = tempfile::tempdir().unwrap();
        let path = pipe(folder.path());
        let writer = {
            let path = path.clone();
            thread::spawn(move || {
                use std::io::Write as _;
                let mut file = File::options().write(true).open(path).unwrap();
                for _ in 0..3 {
                    file.write_all(&[b'x'; 50_000]).unwrap();
                    thread::sleep(Duration::from_millis(20));
                }
            })
        };
        assert_eq!(read_small_file(&path, 1 << 20).unwrap().len(), 150_000);
        writer.join().unwrap();
    }

    #[test]
    fn a_pipe_without_a_writer_is_given_up() {
        let folder = tempfile::tempdir().unwrap();
        let error = read(&pipe(folder.path()), 10, Duration::from_millis(20)).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert!(
            error.to_string().contains("nobody has written for 0.02 s"),
            "{error}"
        );
    }

    #[test]
    fn no_more_than_the_limit_is_read() {
        assert_eq!(
            read_small_file(Path::new("/dev/zero"), 10).unwrap(),
            [0; 10]
        );
        let error = read_small_file(Path::new("/"), 10).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::IsADirectory);
    }
}
