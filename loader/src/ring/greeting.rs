//! What is said before a consumer has a ring: finding the daemon's socket, and one question with its answer.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::io::Errno;

use super::error::{Error, Result};
use super::names::{running_in, runtime_dir, socket_path};
use super::protocol::{Hello, MAX_REPLY, PROTOCOL, Reply, Request, StartFrom};
use super::socket;
use super::status::ServerStatus;

/// A daemon answers at once; this is for one that is stopped or drowned.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// Pause between looks for a daemon that has not started yet.
const RETRY: Duration = Duration::from_millis(50);

/// Asks the daemon called `name` for its status.
///
/// # Errors
/// As [`Consumer::connect`](super::Consumer::connect).
pub fn query_status(name: &str, dir: Option<&Path>) -> Result<ServerStatus> {
    let dir = dir.map_or_else(runtime_dir, Path::to_owned);
    let hello = Hello {
        protocol: PROTOCOL,
        request: Request::Status,
        rank: 0,
        start: StartFrom::Current,
    };
    match introduce(&dir, name, Duration::ZERO, &hello)?.1 {
        Reply::Status(value) => serde_json::from_value(value)
            .map_err(|error| Error::malformed("status", error.to_string())),
        Reply::Version(daemon) => Err(Error::VersionMismatch {
            daemon,
            consumer: PROTOCOL,
        }),
        Reply::Refused(reason) => Err(Error::Refused { reason }),
        Reply::Joined { .. } => Err(Error::malformed(
            "answer",
            "an admission instead of a status",
        )),
    }
}

/// Connects and asks, waiting for a daemon that has not started yet.
pub(super) fn introduce(
    dir: &Path,
    name: &str,
    timeout: Duration,
    hello: &Hello,
) -> Result<(OwnedFd, Reply, Vec<OwnedFd>)> {
    let path = socket_path(dir, name)?;
    let begun = Instant::now();
    loop {
        if let Some(answer) = attempt(&path, hello)? {
            return Ok(answer);
        }
        let left = timeout.saturating_sub(begun.elapsed());
        if left.is_zero() {
            let running = running_in(dir);
            return Err(Error::NoSuchDaemon {
                name: name.to_owned(),
                looked_in: dir.to_owned(),
                running,
            });
        }
        std::thread::sleep(left.min(RETRY));
    }
}

/// None when nobody is there, which includes a daemon that ends before it answers: the next one
/// of its name may be about to start.
fn attempt(path: &Path, hello: &Hello) -> Result<Option<(OwnedFd, Reply, Vec<OwnedFd>)>> {
    let socket = match socket::connect(path) {
        Ok(socket) => socket,
        Err(Errno::NOENT | Errno::CONNREFUSED | Errno::AGAIN | Errno::NOTDIR) => return Ok(None),
        Err(error) => return Err(Error::io_at("connecting to", path, error)),
    };
    match check_owner(&socket, path).and_then(|()| ask(&socket, hello)) {
        Ok((reply, descriptors)) => Ok(Some((socket, reply, descriptors))),
        Err(Error::DaemonDied { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Refuses a socket that somebody else put where ours should be.
fn check_owner(socket: &OwnedFd, path: &Path) -> Result<()> {
    let peer = socket::peer(socket).map_err(|error| died(error, "looking at the daemon"))?;
    let user = rustix::process::geteuid().as_raw();
    if user == 0 || peer.uid == user || peer.uid == 0 {
        return Ok(());
    }
    let denied = std::io::Error::new(
        std::io::ErrorKind::PermissionDenied,
        format!(
            "the daemon there runs as user {}, this program as {user}",
            peer.uid
        ),
    );
    Err(Error::io_at("connecting to", path, denied))
}

pub(super) fn died(error: Errno, action: &'static str) -> Error {
    match error {
        Errno::SRCH | Errno::PIPE | Errno::CONNRESET => Error::DaemonDied { pid: None },
        error => Error::io(action, error),
    }
}

fn ask(socket: &OwnedFd, hello: &Hello) -> Result<(Reply, Vec<OwnedFd>)> {
    let message = serde_json::to_vec(hello)
        .map_err(|error| Error::malformed("request", error.to_string()))?;
    socket::send(socket, &message, &[]).map_err(|error| died(error, "greeting the daemon"))?;
    let begun = Instant::now();
    let mut buffer = vec![0; MAX_REPLY];
    loop {
        let left = ANSWER_WITHIN.saturating_sub(begun.elapsed());
        if left.is_zero() {
            return Err(Error::TimedOut {
                what: "the daemon's answer",
                waited: begun.elapsed(),
                advice: "it holds its name but does not answer: is it stopped, or the machine overloaded?",
            });
        }
        let [ready] = socket::wait_readable([socket.as_fd()], left)
            .map_err(|error| Error::io("waiting for the daemon", error))?;
        if !ready {
            continue;
        }
        match socket::receive(socket, &mut buffer) {
            Err(Errno::AGAIN | Errno::INTR) => {}
            Err(error) => return Err(died(error, "reading the daemon's answer")),
            Ok((0, _)) => return Err(Error::DaemonDied { pid: None }),
            Ok((length, descriptors)) => {
                let reply = serde_json::from_slice(&buffer[..length])
                    .map_err(|error| Error::malformed("answer", error.to_string()))?;
                return Ok((reply, descriptors));
            }
        }
    }
}
