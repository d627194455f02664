//! Tells systemd how the service is: `sd_notify(3)`, by hand.

use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::{Duration, Instant};

/// The service manager's end, if there is one.
pub(crate) struct Notifier {
    socket: UnixDatagram,
    address: SocketAddr,
    /// How often the manager wants to hear that all is well: half of the time after which it acts.
    watchdog: Option<Duration>,
    last: Instant,
}

impl Notifier {
    /// Reads `NOTIFY_SOCKET`, `WATCHDOG_USEC` and `WATCHDOG_PID`; `None` when nobody asked.
    pub(crate) fn from_environment() -> io::Result<Option<Notifier>> {
        let variable = |name: &str| std::env::var(name).unwrap_or_default();
        let socket = variable("NOTIFY_SOCKET");
        if socket.is_empty() {
            return Ok(None);
        }
        let address = match socket.strip_prefix('@') {
            Some(name) => SocketAddr::from_abstract_name(name)?,
            None => SocketAddr::from_pathname(&socket)?,
        };
        let unbound = UnixDatagram::unbound()?;
        // A manager that does not read must not hold the daemon up.
        unbound.set_nonblocking(true)?;
        Ok(Some(Notifier {
            socket: unbound,
            address,
            watchdog: watchdog(&variable("WATCHDOG_USEC"), &variable("WATCHDOG_PID")),
            last: Instant::now(),
        }))
    }

    /// Sends lines such as `READY=1`. Nobody to hear them is no reason to stop.
    pub(crate) fn tell(&self, lines: &str) {
        let _ = self.socket.send_to_addr(lines.as_bytes(), &self.address);
    }

    /// How often [`Notifier::alive`] should be called, if at all.
    pub(crate) fn every(&self) -> Option<Duration> {
        self.watchdog
    }

    /// All is well: feeds the watchdog when that is due.
    pub(crate) fn alive(&mut self) {
        if self
            .watchdog
            .is_some_and(|every| self.last.elapsed() >= every)
        {
            self.last = Instant::now();
            self.tell("WATCHDOG=1");
        }
    }
}

/// Half of the manager's patience, if it watches this process.
fn watchdog(microseconds: &str, pid: &str) -> Option<Duration> {
    let patience = microseconds.parse::<u64>().ok().filter(|time| *time > 0)?;
    let ours = pid.is_empty() || pid.parse() == Ok(std::process::id());
    ours.then(|| Duration::from_micros(patience / 2))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_watchdog_is_for_the_process_it_names() {
        let own = std::process::id().to_string();
        let second = Some(Duration::from_secs(1));
        assert_eq!(watchdog("2000000", ""), second);
        assert_eq!(watchdog("2000000", &own), second);
        assert_eq!(watchdog("2000000", "1"), None);
        assert_eq!(watchdog("0", ""), None);
        assert_eq!(watchdog("soon", ""), None);
    }
}
