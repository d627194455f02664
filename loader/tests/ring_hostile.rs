//! The ring against ends that do not play by the rules.

#[path = "ring_support/mod.rs"]
mod support;

use std::collections::BTreeSet;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use ddas_loader::ring::{ConnectOptions, Consumer, Error, query_status};
use rustix::fs::{MemfdFlags, SealFlags};
use rustix::io::{Errno, IoSlice, IoSliceMut};
use rustix::mm::{MapFlags, MprotectFlags, ProtFlags};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags, SocketType,
};
use support::{Daemon, Dice, LONG, check};

fn raw_socket() -> OwnedFd {
    rustix::net::socket_with(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::CLOEXEC,
        None,
    )
    .unwrap()
}

fn raw_connect(path: &Path) -> OwnedFd {
    let socket = raw_socket();
    rustix::net::connect(&socket, &SocketAddrUnix::new(path).unwrap()).unwrap();
    let receiving = rustix::net::sockopt::Timeout::Recv;
    rustix::net::sockopt::set_socket_timeout(&socket, receiving, Some(LONG)).unwrap();
    socket
}

fn raw_send(socket: &OwnedFd, message: &[u8], descriptors: &[&OwnedFd]) {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(3))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let borrowed: Vec<_> = descriptors.iter().map(|fd| fd.as_fd()).collect();
    if !borrowed.is_empty() {
        assert!(control.push(SendAncillaryMessage::ScmRights(&borrowed)));
    }
    rustix::net::sendmsg(
        socket,
        &[IoSlice::new(message)],
        &mut control,
        SendFlags::NOSIGNAL,
    )
    .unwrap();
}

/// One message, empty when the other end has hung up.
fn raw_receive(socket: &OwnedFd) -> (String, Vec<OwnedFd>) {
    let mut buffer = vec![0; 1 << 17];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(3))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut parts = [IoSliceMut::new(&mut buffer)];
    let length =
        match rustix::net::recvmsg(socket, &mut parts, &mut control, RecvFlags::CMSG_CLOEXEC) {
            Ok(message) => message.bytes,
            Err(Errno::CONNRESET) => 0,
            Err(error) => panic!("{error}"),
        };
    let descriptors = control.drain().flat_map(|item| match item {
        RecvAncillaryMessage::ScmRights(descriptors) => descriptors.collect::<Vec<_>>(),
        _ => Vec::new(),
    });
    let descriptors = descriptors.collect();
    (
        String::from_utf8(buffer[..length].to_vec()).unwrap(),
        descriptors,
    )
}

/// A daemon called `fake` that answers its first greeting with this.
fn fake_daemon(dir: &Path, reply: Vec<u8>, descriptors: Vec<OwnedFd>) -> JoinHandle<()> {
    let path = dir.join("fake.sock");
    let _ = std::fs::remove_file(&path);
    let listener = raw_socket();
    rustix::net::bind(&listener, &SocketAddrUnix::new(&path).unwrap()).unwrap();
    rustix::net::listen(&listener, 4).unwrap();
    std::thread::spawn(move || {
        let socket = rustix::net::accept(&listener).unwrap();
        raw_receive(&socket);
        raw_send(&socket, &reply, &descriptors.iter().collect::<Vec<_>>());
    })
}

fn connect_to_fake(daemon: &Daemon) -> Result<Consumer, Error> {
    let dir = Some(daemon.dir.path().to_owned());
    Consumer::connect(
        "fake",
        ConnectOptions {
            dir,
            ..ConnectOptions::default()
        },
    )
}

#[test]
fn a_daemon_that_ends_before_it_answers_is_not_there() {
    let daemon = Daemon::start(2, 1);
    let dir = daemon.dir.path();
    let ending = fake_daemon(dir, Vec::new(), Vec::new());
    match connect_to_fake(&daemon) {
        Err(Error::NoSuchDaemon { name, .. }) => assert_eq!(name, "fake"),
        other => panic!("{other:?}"),
    }
    ending.join().unwrap();

    // Who has time looks again, and finds the next daemon of the name.
    let ending = fake_daemon(dir, Vec::new(), Vec::new());
    let options = ConnectOptions {
        dir: Some(dir.to_owned()),
        timeout: LONG,
        ..ConnectOptions::default()
    };
    let waiting = std::thread::spawn(move || Consumer::connect("fake", options));
    ending.join().unwrap();
    std::fs::rename(dir.join("toy.sock"), dir.join("fake.sock")).unwrap();
    waiting.join().unwrap().unwrap();
}

#[test]
fn another_protocol_version_is_refused_on_both_sides() {
    let daemon = Daemon::start(2, 1);
    let socket = raw_connect(&daemon.dir.path().join("toy.sock"));
    raw_send(&socket, br#"{"protocol": 99, "rank": 0}"#, &[]);
    assert_eq!(raw_receive(&socket).0, r#"{"version":2}"#);
    assert_eq!(raw_receive(&socket).0, "", "the daemon hangs up");

    let fake = fake_daemon(daemon.dir.path(), br#"{"version":7}"#.to_vec(), Vec::new());
    match connect_to_fake(&daemon) {
        Err(Error::VersionMismatch {
            daemon: 7,
            consumer: 2,
        }) => {}
        other => panic!("{other:?}"),
    }
    fake.join().unwrap();
}

#[test]
fn nonsense_on_the_socket_hurts_nobody() {
    let daemon = Daemon::start(2, 1);
    let path = daemon.dir.path().join("toy.sock");
    let mut silent = Vec::new();
    let deep = "[".repeat(4000);
    let long = "x".repeat(10_000);
    let wrong_rank = r#"{"protocol": 2, "rank": "a"}"#;
    for message in [
        "",
        "{",
        "null",
        "[]",
        r#"{"protocol": -1}"#,
        wrong_rank,
        &deep,
        &long,
    ] {
        silent.push(raw_connect(&path));
        let socket = raw_connect(&path);
        raw_send(&socket, message.as_bytes(), &[&silent[0]]);
        let (answer, descriptors) = raw_receive(&socket);
        assert!(
            answer.is_empty() || answer.starts_with(r#"{"refused":"#),
            "{message:.20}: {answer}"
        );
        assert!(descriptors.is_empty());
    }
    let writer = daemon.write(1..=5);
    let mut consumer = daemon.connect();
    (1..=5).for_each(|sequence| check(&consumer.receive(LONG).unwrap().unwrap(), sequence));
    writer.join().unwrap();
}

fn map(fd: &OwnedFd, bytes: usize, write: bool) -> rustix::io::Result<*mut u8> {
    let protection = if write {
        ProtFlags::READ | ProtFlags::WRITE
    } else {
        ProtFlags::READ
    };
    // SAFETY: a new mapping at an address of the kernel's choice.
    let start = unsafe {
        rustix::mm::mmap(
            std::ptr::null_mut(),
            bytes,
            protection,
            MapFlags::SHARED,
            fd,
            0,
        )
    };
    start.map(|start| start.cast())
}

#[test]
fn a_hostile_consumer_hurts_only_itself() {
    let daemon = Daemon::start(3, 2);
    let mut victim = daemon.connect();
    let socket = raw_connect(&daemon.dir.path().join("toy.sock"));
    raw_send(&socket, br#"{"protocol": 2, "rank": 0}"#, &[]);
    let (answer, descriptors) = raw_receive(&socket);
    assert!(answer.starts_with(r#"{"joined":"#), "{answer}");
    let [data, ack, _] = <[OwnedFd; 3]>::try_from(descriptors).unwrap();

    let bytes = rustix::fs::fstat(&data).unwrap().st_size as usize;
    assert_eq!(
        map(&data, bytes, true).unwrap_err(),
        Errno::PERM,
        "batches cannot be written"
    );
    let start = map(&data, bytes, false).unwrap();
    // SAFETY: exactly the range just mapped.
    let protect = unsafe { rustix::mm::mprotect(start.cast(), bytes, MprotectFlags::WRITE) };
    assert_eq!(
        protect.unwrap_err(),
        Errno::ACCESS,
        "nor made writable later"
    );
    assert_eq!(rustix::io::pwrite(&data, &[0], 0).unwrap_err(), Errno::PERM);
    for fd in [&data, &ack] {
        assert_eq!(
            rustix::fs::ftruncate(fd, 0).unwrap_err(),
            Errno::PERM,
            "nor cut under the others"
        );
    }

    let page = map(&ack, 4096, true).unwrap().expose_provenance();
    let done = Arc::new(AtomicBool::new(false));
    let stop = Arc::clone(&done);
    let scribbler = std::thread::spawn(move || {
        let mut dice = Dice(0xbad);
        while !stop.load(Ordering::Relaxed) {
            for at in 0..512 {
                // Small numbers too: they look like honest acknowledgements.
                let value = if dice.below(2) == 0 {
                    dice.next()
                } else {
                    dice.below(400)
                };
                // SAFETY: inside the page mapped above, which stays mapped.
                unsafe {
                    std::ptr::with_exposed_provenance_mut::<u64>(page)
                        .add(at)
                        .write_volatile(value)
                };
            }
        }
    });
    let writer = daemon.write(1..=300);
    (1..=300).for_each(|sequence| check(&victim.receive(LONG).unwrap().unwrap(), sequence));
    writer.join().unwrap();
    done.store(true, Ordering::Relaxed);
    scribbler.join().unwrap();
    assert!(
        query_status("toy", Some(daemon.dir.path())).is_ok(),
        "the daemon is well"
    );
}

fn memfd(bytes: u64, sealed: bool) -> OwnedFd {
    let fd = rustix::fs::memfd_create("fake", MemfdFlags::ALLOW_SEALING).unwrap();
    rustix::fs::ftruncate(&fd, bytes).unwrap();
    if sealed {
        rustix::fs::fcntl_add_seals(&fd, SealFlags::SHRINK).unwrap();
    }
    fd
}

#[test]
fn a_hostile_daemon_is_an_error_not_a_crash() {
    let daemon = Daemon::start(2, 1);
    let honest = || {
        let socket = raw_connect(&daemon.dir.path().join("toy.sock"));
        raw_send(&socket, br#"{"protocol": 2}"#, &[]);
        let (answer, descriptors) = raw_receive(&socket);
        (answer.into_bytes(), descriptors)
    };
    type Damage<'a> = (&'a str, &'a dyn Fn(&mut Vec<u8>, &mut Vec<OwnedFd>));
    let damages: [Damage<'_>; 8] = [
        ("no descriptors", &|_, descriptors| descriptors.clear()),
        ("half an answer", &|answer, _| {
            answer.truncate(answer.len() / 2)
        }),
        ("first batch 0", &|answer, _| {
            let text = String::from_utf8(answer.clone())
                .unwrap()
                .replace(r#""first":1"#, r#""first":0"#);
            *answer = text.into_bytes();
        }),
        ("data that can shrink", &|_, descriptors| {
            descriptors[0] = memfd(1 << 16, false)
        }),
        ("data without a header", &|_, descriptors| {
            descriptors[0] = memfd(1 << 16, true)
        }),
        ("empty data", &|_, descriptors| {
            descriptors[0] = memfd(0, true)
        }),
        ("a pipe for data", &|_, descriptors| {
            descriptors[0] = std::io::pipe().unwrap().0.into()
        }),
        ("acknowledgements that can shrink", &|_, descriptors| {
            descriptors[1] = memfd(1 << 16, false)
        }),
    ];
    let mut messages = BTreeSet::new();
    for (what, damage) in damages {
        let (mut answer, mut descriptors) = honest();
        damage(&mut answer, &mut descriptors);
        let fake = fake_daemon(daemon.dir.path(), answer, descriptors);
        match connect_to_fake(&daemon) {
            Err(error @ Error::Malformed { .. }) => messages.insert(error.to_string()),
            other => panic!("{what}: {other:?}"),
        };
        fake.join().unwrap();
    }
    assert!(messages.len() >= 6, "they say what is wrong: {messages:?}");
}

#[test]
fn who_is_put_out_before_its_first_look_notices() {
    let daemon = Daemon::start(2, 1);
    let socket = raw_connect(&daemon.dir.path().join("toy.sock"));
    raw_send(&socket, br#"{"protocol": 2}"#, &[]);
    let (answer, mut descriptors) = raw_receive(&socket);
    // Zeros: the generation that the daemon writes when it evicts.
    descriptors[1] = memfd(1 << 16, true);
    let fake = fake_daemon(daemon.dir.path(), answer.into_bytes(), descriptors);
    let mut late = connect_to_fake(&daemon).unwrap();
    assert!(matches!(late.receive(LONG), Err(Error::Evicted)));
    fake.join().unwrap();
}
