//! A small HTTP/1.1 server for scrapers and probes: one thread, many slow clients.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// A client must have asked and taken its answer within this time.
const WITHIN: Duration = Duration::from_secs(5);
/// Clients at a time; one more takes the place of the oldest.
const MOST_CLIENTS: usize = 32;
/// Longest request line and headers.
const MOST_REQUEST: usize = 8 * 1024;
/// How often the server looks whether it should end.
const LOOK_AGAIN: Duration = Duration::from_millis(200);

/// What is sent for a path.
pub(crate) struct Answer {
    pub(crate) status: &'static str,
    pub(crate) content_type: &'static str,
    pub(crate) body: String,
}

impl Answer {
    pub(crate) fn text(status: &'static str, body: impl Into<String>) -> Answer {
        Answer {
            status,
            content_type: "text/plain; charset=utf-8",
            body: body.into(),
        }
    }
}

/// Where to listen: `HOST:PORT`, or a port alone for this machine only.
pub(crate) fn address(text: &str) -> Result<SocketAddr, String> {
    let wrong = |why: String| {
        format!(
            "expected PORT (on the loopback interface) or HOST:PORT, such as 9100 or 0.0.0.0:9100; found {text:?}{why}"
        )
    };
    let port = text.strip_prefix(':').unwrap_or(text);
    if let Ok(port) = port.parse::<u16>() {
        return Ok(SocketAddr::from(([127, 0, 0, 1], port)));
    }
    let mut found = text
        .to_socket_addrs()
        .map_err(|error| wrong(format!(" ({error})")))?;
    found.next().ok_or_else(|| wrong(String::new()))
}

/// A server whose port is taken; it answers once it runs.
pub(crate) struct Server {
    listener: TcpListener,
    address: SocketAddr,
}

struct Client {
    stream: TcpStream,
    since: Instant,
    request: Vec<u8>,
    answer: Vec<u8>,
    sent: usize,
}

/// What becomes of a client.
enum Next {
    Wait,
    Done,
}

impl Server {
    /// Takes the port.
    pub(crate) fn bind(address: SocketAddr) -> io::Result<Server> {
        let listener = TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        Ok(Server { listener, address })
    }

    /// Where it listens; a port 0 has become a real one.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Answers until `done`. `answer` gets the path without its query and must not wait.
    pub(crate) fn run(self, done: &AtomicBool, answer: &dyn Fn(&str) -> Answer) {
        let mut clients: Vec<Client> = Vec::new();
        while !done.load(Ordering::Acquire) {
            self.wait(&clients);
            clients.retain_mut(|client| {
                client.since.elapsed() < WITHIN && matches!(client.advance(answer), Ok(Next::Wait))
            });
            self.accept(&mut clients);
        }
    }

    /// Sleeps until something can be done.
    fn wait(&self, clients: &[Client]) {
        let mut watched = vec![PollFd::new(&self.listener, PollFlags::IN)];
        watched.extend(clients.iter().map(|client| {
            let for_what = match client.answer.is_empty() {
                true => PollFlags::IN,
                false => PollFlags::OUT,
            };
            PollFd::new(&client.stream, for_what)
        }));
        let timeout = Timespec {
            tv_sec: 0,
            tv_nsec: LOOK_AGAIN.subsec_nanos().into(),
        };
        if poll(&mut watched, Some(&timeout)).is_err() {
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn accept(&self, clients: &mut Vec<Client>) {
        loop {
            match self.listener.accept() {
                Ok((stream, _)) => {
                    if stream.set_nonblocking(true).is_err() {
                        continue;
                    }
                    if clients.len() >= MOST_CLIENTS {
                        clients.remove(0);
                    }
                    clients.push(Client {
                        stream,
                        since: Instant::now(),
                        request: Vec::new(),
                        answer: Vec::new(),
                        sent: 0,
                    });
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == ErrorKind::Interrupted => (),
                Err(error) if error.kind() == ErrorKind::ConnectionAborted => (),
                Err(_) => {
                    // Out of descriptors: do not spin on a listener that stays readable.
                    std::thread::sleep(Duration::from_millis(10));
                    return;
                }
            }
        }
    }
}

impl Client {
    /// Reads or writes what is possible at once.
    fn advance(&mut self, answer: &dyn Fn(&str) -> Answer) -> io::Result<Next> {
        if self.answer.is_empty() && !self.read(answer)? {
            return Ok(Next::Wait);
        }
        while self.sent < self.answer.len() {
            match self.stream.write(&self.answer[self.sent..]) {
                Ok(0) => return Ok(Next::Done),
                Ok(sent) => self.sent += sent,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(Next::Wait),
                Err(error) if error.kind() == ErrorKind::Interrupted => (),
                Err(error) => return Err(error),
            }
        }
        Ok(Next::Done)
    }

    /// Whether there is an answer now.
    fn read(&mut self, answer: &dyn Fn(&str) -> Answer) -> io::Result<bool> {
        let mut piece = [0; 2048];
        loop {
            match self.stream.read(&mut piece) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(length) => self.request.extend_from_slice(&piece[..length]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            }
            let ends = |end: &[u8]| self.request.windows(end.len()).any(|bytes| bytes == end);
            if ends(b"\r\n\r\n") || ends(b"\n\n") {
                self.answer = respond(&self.request, answer);
                return Ok(true);
            }
            if self.request.len() > MOST_REQUEST {
                let refused = Answer::text(
                    "431 Request Header Fields Too Large",
                    "the request is too long\n",
                );
                self.answer = written(&refused, true, "");
                return Ok(true);
            }
        }
    }
}

/// The bytes that answer a request.
fn respond(request: &[u8], answer: &dyn Fn(&str) -> Answer) -> Vec<u8> {
    let line = request.split(|&byte| byte == b'\n').next().unwrap_or(&[]);
    let line = String::from_utf8_lossy(line);
    let words: Vec<&str> = line.trim_end().split(' ').collect();
    let [method, target, version] = words[..] else {
        let bad = Answer::text("400 Bad Request", "this is no HTTP request\n");
        return written(&bad, true, "");
    };
    if !version.starts_with("HTTP/1.") {
        let bad = Answer::text("400 Bad Request", "expected HTTP/1.1 or HTTP/1.0\n");
        return written(&bad, true, "");
    }
    if method != "GET" && method != "HEAD" {
        let refused = Answer::text("405 Method Not Allowed", "only GET and HEAD are answered\n");
        return written(&refused, true, "Allow: GET, HEAD\r\n");
    }
    let path = target.split(['?', '#']).next().unwrap_or_default();
    written(&answer(path), method == "GET", "")
}

fn written(answer: &Answer, with_body: bool, headers: &str) -> Vec<u8> {
    let mut text = format!(
        "HTTP/1.1 {}\r\nContent-Type: {}\r\nContent-Length: {}\r\nConnection: close\r\n{headers}\r\n",
        answer.status,
        answer.content_type,
        answer.body.len(),
    );
    if with_body {
        text.push_str(&answer.body);
    }
    text.into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_alone_is_for_this_machine_only() {
        for (text, expected) in [
            ("9100", "127.0.0.1:9100"),
            (":9100", "127.0.0.1:9100"),
            ("0.0.0.0:80", "0.0.0.0:80"),
            ("[::1]:80", "[::1]:80"),
        ] {
            assert_eq!(
                address(text).map(|address| address.to_string()),
                Ok(expected.to_owned())
            );
        }
        for bad in ["", "host", "70000", "1.2.3.4:", "x y:1"] {
            assert!(
                address(bad).is_err_and(|error| error.contains("HOST:PORT")),
                "{bad}"
            );
        }
    }

    #[test]
    fn requests_are_answered_by_their_path() {
        let answer = |path: &str| Answer::text("200 OK", format!("[{path}]"));
        let ask = |request: &str| String::from_utf8(respond(request.as_bytes(), &answer)).unwrap();
        let got = ask("GET /metrics?x=1 HTTP/1.1\r\nHost: a\r\n\r\n");
        assert!(
            got.starts_with("HTTP/1.1 200 OK\r\n") && got.ends_with("\r\n\r\n[/metrics]"),
            "{got}"
        );
        assert!(got.contains("Content-Length: 10\r\n"));
        assert!(
            ask("HEAD /x HTTP/1.0\r\n\r\n")
                .ends_with("Content-Length: 4\r\nConnection: close\r\n\r\n")
        );
        assert!(ask("POST /x HTTP/1.1\r\n\r\n").starts_with("HTTP/1.1 405 "));
        for bad in [
            "\r\n\r\n",
            "GET /x\r\n\r\n",
            "GET /x HTTP/2\r\n\r\n",
            "a b c d\r\n\r\n",
        ] {
            assert!(ask(bad).starts_with("HTTP/1.1 400 "), "{bad}");
        }
    }
}
