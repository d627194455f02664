//! The thread that admits consumers and watches them live and die.

use std::collections::HashMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use rustix::buffer::spare_capacity;
use rustix::event::{EventfdFlags, epoll};
use rustix::io::Errno;
use rustix::time::Timespec;

use super::MAX_CONSUMERS;
use super::error::{Error, Result};
use super::protocol::{Hello, MAX_REPLY, MAX_REQUEST, PROTOCOL, Reply, Request, StartFrom};
use super::server::Inner;
use super::socket::{self, Peer};
use super::status::{ConsumerChange, ConsumerEvent, process_name};

/// A connection must say what it wants within this time.
const HELLO_WITHIN: Duration = Duration::from_secs(10);
/// Connections that have not said what they want; more are turned away.
const MAX_PENDING: usize = 256;

/// A joined consumer.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) pid: Option<u32>,
    pub(super) name: String,
    pub(super) since: Instant,
}

struct Connection {
    socket: OwnedFd,
    peer: Peer,
    since: Instant,
    /// Rank and eventfd, once joined.
    joined: Option<(usize, OwnedFd)>,
}

/// What an epoll event is about: connection number and descriptor.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Source {
    Listener,
    Stop,
    Socket(u64),
    Death(u64),
    Released(u64),
}

impl Source {
    fn token(self) -> epoll::EventData {
        epoll::EventData::new_u64(match self {
            Source::Listener => 0,
            Source::Stop => 1,
            Source::Socket(id) => id << 2 | 1,
            Source::Death(id) => id << 2 | 2,
            Source::Released(id) => id << 2 | 3,
        })
    }

    fn of(token: u64) -> Self {
        match (token >> 2, token & 3) {
            (0, 0) => Source::Listener,
            (0, _) => Source::Stop,
            (id, 1) => Source::Socket(id),
            (id, 2) => Source::Death(id),
            (id, _) => Source::Released(id),
        }
    }
}

pub(super) struct Control {
    inner: Arc<Inner>,
    epoll: OwnedFd,
    listener: OwnedFd,
    connections: HashMap<u64, Connection>,
    next: u64,
}

impl Control {
    pub(super) fn new(inner: Arc<Inner>, listener: OwnedFd, stop: BorrowedFd<'_>) -> Result<Self> {
        let wrap = |error: Errno| Error::io("watching the socket", error);
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).map_err(wrap)?;
        epoll::add(
            &epoll,
            &listener,
            Source::Listener.token(),
            epoll::EventFlags::IN,
        )
        .map_err(wrap)?;
        epoll::add(&epoll, stop, Source::Stop.token(), epoll::EventFlags::IN).map_err(wrap)?;
        Ok(Self {
            inner,
            epoll,
            listener,
            connections: HashMap::new(),
            next: 1,
        })
    }

    pub(super) fn run(mut self) {
        let mut events = Vec::with_capacity(64);
        let second = Timespec {
            tv_sec: 1,
            tv_nsec: 0,
        };
        loop {
            events.clear();
            if epoll::wait(&self.epoll, spare_capacity(&mut events), Some(&second)).is_err() {
                events.clear();
            }
            for event in &events {
                let token = event.data.u64();
                match Source::of(token) {
                    Source::Stop => return,
                    Source::Listener => self.accept(),
                    Source::Socket(id) => self.hear(id),
                    Source::Death(id) => self.forget(id),
                    Source::Released(id) => self.released(id),
                }
            }
            self.drop_silent();
            self.inner.beat();
        }
    }

    fn watch(&self, fd: impl AsFd, source: Source) -> rustix::io::Result<()> {
        epoll::add(&self.epoll, fd, source.token(), epoll::EventFlags::IN)
    }

    fn accept(&mut self) {
        let socket = match socket::accept(&self.listener) {
            Ok(Some(socket)) => socket,
            Ok(None) => return,
            Err(_) => {
                // Out of descriptors: the listener stays readable; do not spin on it.
                std::thread::sleep(Duration::from_millis(10));
                return;
            }
        };
        let pending = self
            .connections
            .values()
            .filter(|connection| connection.joined.is_none())
            .count();
        let Ok(peer) = socket::peer(&socket) else {
            return;
        };
        let user = rustix::process::geteuid().as_raw();
        if peer.uid != user && peer.uid != 0 {
            answer(
                &socket,
                &Reply::Refused("this daemon belongs to another user".to_owned()),
            );
            return;
        }
        if pending >= MAX_PENDING {
            answer(
                &socket,
                &Reply::Refused("too many connections at once; try again".to_owned()),
            );
            return;
        }
        let id = self.next;
        self.next += 1;
        let mut watched = self.watch(&socket, Source::Socket(id));
        if let Some(pidfd) = &peer.pidfd {
            watched = watched.and(self.watch(pidfd, Source::Death(id)));
        }
        if watched.is_ok() {
            let connection = Connection {
                socket,
                peer,
                since: Instant::now(),
                joined: None,
            };
            self.connections.insert(id, connection);
        }
    }

    /// A message or the end of one connection.
    fn hear(&mut self, id: u64) {
        let Some(connection) = self.connections.get(&id) else {
            return;
        };
        let mut buffer = [0; MAX_REQUEST];
        match socket::receive(&connection.socket, &mut buffer) {
            Err(Errno::AGAIN | Errno::INTR) => {}
            Err(_) | Ok((0, _)) => self.forget(id),
            // After joining a consumer has nothing to say.
            Ok(_) if connection.joined.is_some() => {}
            Ok((length, _)) => {
                if !self.greet(id, &buffer[..length]) {
                    self.forget(id);
                }
            }
        }
    }

    /// Whether the connection stays open.
    fn greet(&mut self, id: u64, message: &[u8]) -> bool {
        let Some(connection) = self.connections.get(&id) else {
            return false;
        };
        let hello: Hello = match serde_json::from_slice(message) {
            Ok(hello) => hello,
            Err(error) => {
                answer(
                    &connection.socket,
                    &Reply::Refused(format!("the request is not understood: {error}")),
                );
                return false;
            }
        };
        if hello.protocol != PROTOCOL {
            answer(&connection.socket, &Reply::Version(PROTOCOL));
            return false;
        }
        match hello.request {
            Request::Status => {
                let status = self.inner.status().shortened(MAX_REPLY - 64);
                answer(&connection.socket, &Reply::Status(status));
                false
            }
            Request::Join => match self.join(id, hello.rank, hello.start) {
                Ok(()) => true,
                Err(reason) => {
                    if let Some(connection) = self.connections.get(&id) {
                        answer(&connection.socket, &Reply::Refused(reason));
                    }
                    false
                }
            },
        }
    }

    fn join(&mut self, id: u64, rank: u32, start: StartFrom) -> std::result::Result<(), String> {
        let ranks = self.inner.rings.len();
        let Some(ring) = self.inner.rings.get(rank as usize).map(Arc::clone) else {
            return Err(match ranks {
                1 => format!("there is no rank {rank}: this daemon serves rank 0 only"),
                _ => format!(
                    "there is no rank {rank}: this daemon serves ranks 0 to {}",
                    ranks - 1
                ),
            });
        };
        if ring.consumers() >= MAX_CONSUMERS {
            return Err(format!("rank {rank} already has {MAX_CONSUMERS} consumers"));
        }
        // The causes stay here: they name descriptors and limits of the daemon's process.
        let failed = |_| "the daemon has no resources left for another consumer".to_owned();
        let eventfd = rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
            .map_err(failed)?;
        self.watch(&eventfd, Source::Released(id)).map_err(failed)?;
        let joined = ring.join(id, start).map_err(|error| match error {
            Error::Refused { reason } => reason,
            _ => failed(Errno::NOMEM),
        })?;
        let Some(connection) = self.connections.get_mut(&id) else {
            ring.leave(id);
            return Ok(());
        };
        let reply = Reply::Joined {
            info: Box::new(ring.info.clone()),
            first: joined.first,
        };
        let message = serde_json::to_vec(&reply).unwrap_or_default();
        let descriptors = [ring.data_fd.as_fd(), joined.ack.as_fd(), eventfd.as_fd()];
        let pid = connection.peer.pid;
        let member = Member {
            pid,
            name: pid.map_or_else(String::new, process_name),
            since: Instant::now(),
        };
        self.inner.events.push(ConsumerEvent {
            at: SystemTime::now(),
            rank,
            id,
            pid,
            name: member.name.clone(),
            what: ConsumerChange::Joined {
                first: joined.first,
            },
        });
        let sent = socket::send(&connection.socket, &message, &descriptors);
        connection.joined = Some((rank as usize, eventfd));
        self.inner
            .members
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(id, member);
        sent.map_err(|error| format!("the answer could not be sent: {error}"))
    }

    fn released(&mut self, id: u64) {
        if let Some(Connection {
            joined: Some((rank, eventfd)),
            ..
        }) = self.connections.get(&id)
        {
            let mut count = [0; 8];
            let _ = rustix::io::read(eventfd, &mut count);
            self.inner.rings[*rank].released();
        }
    }

    fn forget(&mut self, id: u64) {
        // Closing the descriptors takes them out of the epoll set, unless a copy lives
        // elsewhere: the eventfd does, in the consumer.
        let Some(connection) = self.connections.remove(&id) else {
            return;
        };
        if let Some((rank, eventfd)) = connection.joined {
            let _ = epoll::delete(&self.epoll, &eventfd);
            let behind = self.inner.rings[rank].leave(id);
            let member = self
                .inner
                .members
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .remove(&id);
            if let (Some(behind), Some(member)) = (behind, member) {
                self.inner.events.push(ConsumerEvent {
                    at: SystemTime::now(),
                    rank: rank as u32,
                    id,
                    pid: member.pid,
                    name: member.name,
                    what: ConsumerChange::Left {
                        behind,
                        connected: member.since.elapsed(),
                    },
                });
            }
        }
    }

    fn drop_silent(&mut self) {
        self.connections.retain(|_, connection| {
            connection.joined.is_some() || connection.since.elapsed() < HELLO_WITHIN
        });
    }
}

fn answer(socket: &OwnedFd, reply: &Reply) {
    // A client that does not listen has lost its answer; nothing of ours depends on it.
    if let Ok(message) = serde_json::to_vec(reply) {
        let _ = socket::send(socket, &message, &[]);
    }
}
