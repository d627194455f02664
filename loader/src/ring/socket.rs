//! Unix sequenced-packet sockets: messages with file descriptors, and who is at the other end.

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags, SocketType,
};
use rustix::process::{Pid, PidfdFlags};
use rustix::time::Timespec;

/// Descriptors one message may carry.
const MAX_DESCRIPTORS: usize = 4;

/// `SO_PEERPIDFD` of Linux 6.5; the libc crate does not name it yet.
const SO_PEERPIDFD: libc::c_int = 77;

fn new_socket() -> rustix::io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)
}

/// Listens at `path`, for this user only.
pub(super) fn listen(path: &Path) -> rustix::io::Result<OwnedFd> {
    let socket = new_socket()?;
    // Under another name until connections are accepted: who sees the socket can join at once.
    // The name's lock is ours, so a file left there is a dead daemon's.
    let mut unfinished = path.as_os_str().to_owned();
    unfinished.push(".new");
    match rustix::fs::unlink(&unfinished) {
        Ok(()) | Err(Errno::NOENT) => {}
        Err(error) => return Err(error),
    }
    rustix::net::bind(&socket, &SocketAddrUnix::new(&unfinished)?)?;
    rustix::fs::chmod(&unfinished, rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR)?;
    rustix::net::listen(&socket, 128)?;
    rustix::fs::rename(&unfinished, path)?;
    Ok(socket)
}

/// The next waiting connection, if any.
pub(super) fn accept(listener: &OwnedFd) -> rustix::io::Result<Option<OwnedFd>> {
    match rustix::net::accept_with(listener, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK) {
        Ok(socket) => Ok(Some(socket)),
        Err(Errno::AGAIN | Errno::CONNABORTED | Errno::INTR) => Ok(None),
        Err(error) => Err(error),
    }
}

pub(super) fn connect(path: &Path) -> rustix::io::Result<OwnedFd> {
    let socket = new_socket()?;
    rustix::net::connect(&socket, &SocketAddrUnix::new(path)?)?;
    Ok(socket)
}

/// Sends one message without waiting.
pub(super) fn send(
    socket: impl AsFd,
    message: &[u8],
    descriptors: &[BorrowedFd<'_>],
) -> rustix::io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() && !control.push(SendAncillaryMessage::ScmRights(descriptors)) {
        return Err(Errno::INVAL);
    }
    let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
    let sent = rustix::net::sendmsg(socket, &[IoSlice::new(message)], &mut control, flags)?;
    if sent == message.len() {
        Ok(())
    } else {
        Err(Errno::MSGSIZE)
    }
}

/// Receives one message without waiting: its length (0 at end of file) and descriptors.
pub(super) fn receive(
    socket: impl AsFd,
    buffer: &mut [u8],
) -> rustix::io::Result<(usize, Vec<OwnedFd>)> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
    let message =
        rustix::net::recvmsg(socket, &mut [IoSliceMut::new(buffer)], &mut control, flags)?;
    let mut descriptors = Vec::new();
    for item in control.drain() {
        if let RecvAncillaryMessage::ScmRights(received) = item {
            descriptors.extend(received);
        }
    }
    if message
        .flags
        .intersects(rustix::net::ReturnFlags::TRUNC | rustix::net::ReturnFlags::CTRUNC)
    {
        return Err(Errno::MSGSIZE);
    }
    Ok((message.bytes, descriptors))
}

/// Waits until one of the descriptors has something to say (data or its end); which have.
pub(super) fn wait_readable<const N: usize>(
    descriptors: [BorrowedFd<'_>; N],
    timeout: Duration,
) -> rustix::io::Result<[bool; N]> {
    let mut polled = descriptors.map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN));
    let timeout = Timespec {
        tv_sec: timeout.as_secs().min(i32::MAX as u64) as i64,
        tv_nsec: timeout.subsec_nanos().into(),
    };
    match rustix::event::poll(&mut polled, Some(&timeout)) {
        Ok(_) => Ok(polled.map(|fd| !fd.revents().is_empty())),
        Err(Errno::INTR) => Ok([false; N]),
        Err(error) => Err(error),
    }
}

/// The process at the other end of a connection.
#[derive(Debug)]
pub(super) struct Peer {
    /// `None` when it lives where this process cannot see it (another PID namespace).
    pub(super) pid: Option<u32>,
    pub(super) uid: u32,
    /// Readable once the process is dead; `None` when the system offers none.
    pub(super) pidfd: Option<OwnedFd>,
}

/// # Errors
/// `ESRCH` when the peer is already dead.
pub(super) fn peer(socket: &OwnedFd) -> rustix::io::Result<Peer> {
    let (pid, uid) = credentials(socket)?;
    let pidfd = match peer_pidfd(socket) {
        Ok(pidfd) => Some(pidfd),
        // Older kernels do not know the option; then the number must do, although it
        // could in theory be a new process's by now. End of file is the second witness.
        Err(Errno::NOPROTOOPT) => match pid.and_then(|pid| Pid::from_raw(pid as i32)) {
            Some(pid) => match rustix::process::pidfd_open(pid, PidfdFlags::empty()) {
                Ok(pidfd) => Some(pidfd),
                Err(Errno::SRCH) => return Err(Errno::SRCH),
                Err(_) => None,
            },
            None => None,
        },
        Err(Errno::SRCH | Errno::INVAL | Errno::NODATA) => return Err(Errno::SRCH),
        Err(_) => None,
    };
    Ok(Peer { pid, uid, pidfd })
}

/// `SO_PEERCRED`, read as plain numbers: a peer in another PID namespace has pid 0.
fn credentials(socket: &OwnedFd) -> rustix::io::Result<(Option<u32>, u32)> {
    let mut value = libc::ucred {
        pid: 0,
        uid: 0,
        gid: 0,
    };
    let mut length = size_of::<libc::ucred>() as libc::socklen_t;
    // SAFETY: `value` and `length` are valid for writing and `length` is the size of `value`.
    let status = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PEERCRED,
            (&raw mut value).cast(),
            &raw mut length,
        )
    };
    if status != 0 {
        return Err(last_error());
    }
    Ok((
        u32::try_from(value.pid).ok().filter(|&pid| pid != 0),
        value.uid,
    ))
}

fn peer_pidfd(socket: &OwnedFd) -> rustix::io::Result<OwnedFd> {
    let mut fd: libc::c_int = -1;
    let mut length = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: `fd` and `length` are valid for writing and `length` is the size of `fd`.
    let status = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            SO_PEERPIDFD,
            (&raw mut fd).cast(),
            &raw mut length,
        )
    };
    if status != 0 {
        return Err(last_error());
    }
    if fd < 0 {
        return Err(Errno::BADF);
    }
    // SAFETY: the kernel has just installed this descriptor for us; nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn last_error() -> Errno {
    Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_keep_their_bounds_and_carry_descriptors() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s.sock");
        let listener = listen(&path).unwrap();
        assert!(accept(&listener).unwrap().is_none());
        let client = connect(&path).unwrap();
        let server = accept(&listener).unwrap().unwrap();

        let (mut reader, writer) = std::io::pipe().unwrap();
        send(&client, b"one", &[]).unwrap();
        send(&client, b"two", &[writer.as_fd()]).unwrap();
        drop(writer);
        let mut buffer = [0; 16];
        let (length, descriptors) = receive(&server, &mut buffer).unwrap();
        assert_eq!((&buffer[..length], descriptors.len()), (&b"one"[..], 0));
        let (length, descriptors) = receive(&server, &mut buffer).unwrap();
        assert_eq!((&buffer[..length], descriptors.len()), (&b"two"[..], 1));
        rustix::io::write(&descriptors[0], b"through").unwrap();
        drop(descriptors);
        let mut text = String::new();
        std::io::Read::read_to_string(&mut reader, &mut text).unwrap();
        assert_eq!(text, "through");

        assert_eq!(receive(&server, &mut buffer).unwrap_err(), Errno::AGAIN);
        send(&client, &[7; 64], &[]).unwrap();
        assert_eq!(receive(&server, &mut buffer).unwrap_err(), Errno::MSGSIZE);
        drop(client);
        assert_eq!(receive(&server, &mut buffer).unwrap().0, 0);
    }

    #[test]
    fn the_peer_is_known_by_number_and_descriptor() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s.sock");
        let listener = listen(&path).unwrap();
        let client = connect(&path).unwrap();
        let server = accept(&listener).unwrap().unwrap();
        for end in [&client, &server] {
            let peer = peer(end).unwrap();
            assert_eq!(peer.pid, Some(std::process::id()));
            assert_eq!(peer.uid, rustix::process::geteuid().as_raw());
            let pidfd = peer.pidfd.unwrap();
            assert_eq!(
                wait_readable([pidfd.as_fd()], Duration::ZERO).unwrap(),
                [false]
            );
        }
    }
}
