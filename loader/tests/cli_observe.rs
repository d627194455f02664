//! What can be seen of a running daemon: status, metrics, logs, the service manager's messages.

mod cli_support;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use cli_support::{Running, Sandbox, flip_byte};
use rustix::process::Signal;
use serde_json::Value;

const LONG: Duration = Duration::from_secs(60);

/// What a daemon answers to a request.
fn ask(address: &str, request: &str) -> String {
    let mut stream = TcpStream::connect(address).expect("a listening daemon");
    stream.set_read_timeout(Some(LONG)).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    answer
}

fn get(address: &str, path: &str) -> String {
    let answer = ask(
        address,
        &format!("GET {path} HTTP/1.1\r\nHost: test\r\n\r\n"),
    );
    let (head, body) = answer.split_once("\r\n\r\n").expect("head and body");
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    assert!(
        head.contains(&format!("Content-Length: {}\r\n", body.len())),
        "{head}"
    );
    body.to_owned()
}

/// The address in `; metrics at http://ADDRESS/metrics`.
fn address(ready: &str) -> String {
    let rest = ready
        .split_once("metrics at http://")
        .expect("an address")
        .1;
    rest.split('/').next().unwrap().to_owned()
}

/// A strict reader of the text format: families in one piece, each with HELP and TYPE, names and labels well-formed, no
/// sample twice, histograms cumulative. Values by `name{labels}` as they stand in the text.
fn parsed(text: &str) -> BTreeMap<String, f64> {
    let named = |name: &str| {
        let mut letters = name.chars();
        letters
            .next()
            .is_some_and(|first| first.is_ascii_alphabetic() || first == '_')
            && letters.all(|letter| letter.is_ascii_alphanumeric() || letter == '_')
    };
    assert!(text.ends_with('\n'));
    let mut values = BTreeMap::new();
    let mut families = BTreeSet::new();
    let (mut helped, mut family, mut kind) = ("", "", "");
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, help) = rest.split_once(' ').expect("a name and a text");
            assert!(!help.is_empty() && families.insert(name), "{line}");
            helped = name;
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            (family, kind) = rest.split_once(' ').expect("a name and a kind");
            assert_eq!(family, helped, "{line}");
            assert!(["counter", "gauge", "histogram"].contains(&kind), "{line}");
            assert!(named(family) && family.starts_with("ddas_"), "{line}");
            assert_eq!(kind == "counter", family.ends_with("_total"), "{line}");
        } else {
            let (sample, value) = line.rsplit_once(' ').expect("a sample and a value");
            let name = sample.split('{').next().unwrap();
            match kind {
                "histogram" => {
                    let part = name.strip_prefix(family).expect("a part of the histogram");
                    assert!(["_bucket", "_sum", "_count"].contains(&part), "{line}");
                }
                _ => assert_eq!(name, family, "{line}"),
            }
            if let Some(labels) = sample
                .strip_prefix(name)
                .filter(|labels| !labels.is_empty())
            {
                let labels = labels
                    .strip_prefix('{')
                    .and_then(|labels| labels.strip_suffix('}'));
                let mut seen = BTreeSet::new();
                for label in labels.expect("braces").split("\",") {
                    let (name, value) = label.split_once("=\"").expect("a name and a value");
                    let value = value.strip_suffix('"').unwrap_or(value);
                    assert!(
                        named(name) && seen.insert(name) && !value.contains('"'),
                        "{line}"
                    );
                }
            }
            let value: f64 = value.parse().expect("a number");
            assert!(
                values.insert(sample.to_owned(), value).is_none(),
                "twice: {line}"
            );
        }
    }
    check_histograms(&values);
    values
}

fn check_histograms(values: &BTreeMap<String, f64>) {
    let mut checked = 0;
    for (count_name, count) in values {
        let Some((histogram, labels)) = count_name.split_once("_count{") else {
            continue;
        };
        let labels = labels.strip_suffix('}').unwrap();
        let start = format!("{histogram}_bucket{{{labels},le=\"");
        let mut buckets: Vec<(f64, f64)> = values
            .iter()
            .filter_map(|(name, value)| {
                let bound = name.strip_prefix(&start)?.strip_suffix("\"}")?;
                Some((bound.parse().expect("a bound"), *value))
            })
            .collect();
        buckets.sort_by(|one, other| one.0.total_cmp(&other.0));
        assert!(
            buckets.windows(2).all(|pair| pair[0].1 <= pair[1].1),
            "{buckets:?}"
        );
        assert_eq!(buckets.last(), Some(&(f64::INFINITY, *count)));
        assert!(values.contains_key(&format!("{histogram}_sum{{{labels}}}")));
        checked += 1;
    }
    assert!(checked > 0, "no histogram");
}

#[test]
fn metrics_are_well_formed_and_count_what_happens() {
    let sandbox = Sandbox::new();
    let dataset = sandbox.dataset("noise.lmdb", 40);
    let daemon = sandbox.start(&format!(
        "serve {} --name seen --recipe cifar --epochs 3 --batch-size 8 --world-size 2 --slots 3 --metrics 0",
        dataset.display()
    ));
    let at = address(&daemon.stderr_line("ready: "));
    assert!(at.starts_with("127.0.0.1:"), "{at}");
    assert_eq!(get(&at, "/healthz"), "ok\n");
    let before = parsed(&get(&at, "/metrics"));
    assert_eq!(before["ddas_consumers{rank=\"1\"}"], 0.0);
    let limits = before
        .iter()
        .filter(|limit| limit.0.starts_with("ddas_limit{"));
    assert_eq!(
        limits.map(|limit| limit.1).sum::<f64>(),
        1.0,
        "one is the limit"
    );

    let mut consumer = sandbox.connect("seen", 1);
    let mut held = Vec::new();
    for _ in 0..3 {
        held.push(consumer.receive(LONG).unwrap().unwrap());
    }
    let during = parsed(&get(&at, "/metrics"));
    let id = during
        .keys()
        .find_map(|name| name.strip_prefix("ddas_consumer_lag_batches{rank=\"1\",consumer=\""))
        .expect("the consumer")
        .trim_end_matches("\"}");
    let of = |name: &str| during[&format!("{name}{{rank=\"1\",consumer=\"{id}\"}}")];
    assert_eq!(of("ddas_consumer_lag_batches"), 3.0);
    assert!(of("ddas_consumer_holding_seconds") > 0.0);
    assert_eq!(during["ddas_slots{rank=\"1\",state=\"ready\"}"], 3.0);
    assert_eq!(during["ddas_slots{rank=\"1\",state=\"free\"}"], 0.0);
    let info = during
        .keys()
        .find(|name| name.starts_with("ddas_consumer_info"));
    let pid = format!("pid=\"{}\"", std::process::id());
    assert!(
        info.is_some_and(|info| info.contains(&pid) && info.contains("name=\"cli_observe")),
        "{info:?}"
    );

    drop(held);
    while consumer.receive(LONG).unwrap().is_some() {}
    // The other rank has not been read: the daemon still runs, and its counters only grow.
    let after = parsed(&get(&at, "/metrics?name=x"));
    assert_eq!(after["ddas_batches_total{rank=\"1\"}"], 15.0);
    assert_eq!(after["ddas_images_total{rank=\"1\"}"], 60.0);
    assert_eq!(after["ddas_batch_filling_seconds_count{rank=\"1\"}"], 15.0);
    assert!(after["ddas_rank_worker_seconds_total{rank=\"1\",stage=\"read\"}"] > 0.0);
    for (name, value) in &before {
        if name.contains("_total") || name.contains("_bucket") {
            assert!(after[name] >= *value, "{name}");
        }
    }
    let mut other = sandbox.connect("seen", 0);
    while other.receive(LONG).unwrap().is_some() {}
    daemon.end().succeeded();
    assert!(TcpStream::connect(&at).is_err(), "the port is closed");
}

/// Forty clients that say nothing, or only half of what they should, do not keep a forty-first from its answer.
#[test]
fn slow_and_bad_clients_hold_nobody_up() {
    let sandbox = Sandbox::new();
    let dataset = sandbox.dataset("noise.lmdb", 16);
    let daemon = sandbox.start(&format!(
        "serve {} --name slow --recipe cifar --epochs 1 --batch-size 8 --metrics 127.0.0.1:0",
        dataset.display()
    ));
    let at = address(&daemon.stderr_line("ready: "));
    let silent: Vec<TcpStream> = (0..40)
        .map(|number| {
            let mut stream = TcpStream::connect(&at).unwrap();
            if number % 2 == 0 {
                stream.write_all(b"GET /metrics HTT").unwrap();
            }
            stream
        })
        .collect();
    assert_eq!(get(&at, "/healthz"), "ok\n");
    for (request, status) in [
        ("DELETE /metrics HTTP/1.1\r\n\r\n", "405"),
        ("GET /other HTTP/1.1\r\n\r\n", "404"),
        ("nonsense\r\n\r\n", "400"),
    ] {
        let answer = ask(&at, request);
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status} ")),
            "{answer}"
        );
    }
    // More than a request may be long; the daemon may close before all of it is sent.
    let mut endless = TcpStream::connect(&at).unwrap();
    let _ = endless.write_all(&[b'a'; 20_000]);
    let mut answer = Vec::new();
    let _ = endless.read_to_end(&mut answer);
    assert!(!answer.starts_with(b"HTTP/1.1 200"));
    assert_eq!(get(&at, "/healthz"), "ok\n");
    drop(silent);
    daemon.signal(Signal::TERM);
    daemon.end().succeeded();
}

#[test]
fn a_port_in_use_is_refused_before_anything_is_offered() {
    let sandbox = Sandbox::new();
    let dataset = sandbox.dataset("noise.lmdb", 16);
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let serve = format!(
        "serve {} --name port --recipe cifar --epochs 1 --batch-size 8",
        dataset.display()
    );
    let refused = sandbox.run(&format!("{serve} --metrics {port}"));
    assert!(!refused.stderr.contains("ready: "), "{}", refused.stderr);
    refused.failed(
        1,
        &["127.0.0.1:", &port.to_string(), "in use", "another port"],
    );
    sandbox
        .run("status port")
        .failed(1, &["no daemon named `port`"]);
    sandbox
        .run(&format!("{serve} --metrics nowhere"))
        .failed(2, &["--metrics"]);
}

/// Every line of a JSON log, each an object with time, level, message and event.
fn events(log: &str) -> Vec<Value> {
    let line = |line: &str| {
        let value: Value =
            serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        for key in ["timestamp", "level", "message", "event"] {
            assert!(value[key].is_string(), "{key} of {line}");
        }
        value
    };
    log.lines().map(line).collect()
}

fn of<'a>(events: &'a [Value], event: &str) -> Vec<&'a Value> {
    events
        .iter()
        .filter(|found| found["event"] == event)
        .collect()
}

#[test]
fn a_json_log_has_an_object_for_everything_that_happens() {
    let sandbox = Sandbox::new();
    let dataset = sandbox.dataset("noise.lmdb", 40);
    flip_byte(&dataset, 7);
    let daemon = sandbox.start(&format!(
        "serve {} --name log --recipe cifar --epochs 2 --batch-size 8 --seed 9 --threads 2 --slots 3 --grace 5 \
         --on-bad substitute --max-bad 1 --log json",
        dataset.display()
    ));
    daemon.stderr_line("{");
    sandbox.run("consume log --batches 3").succeeded();
    sandbox.run("consume log").succeeded();
    let ended = daemon.end();
    let events = events(&ended.stderr);
    let start = &of(&events, "start")[0];
    for (key, value) in [
        ("name", Value::from("log")),
        ("seed", 9.into()),
        ("epochs", 2.into()),
        ("batch_size", 8.into()),
        ("threads", 2.into()),
        ("slots", 3.into()),
        ("steps_per_epoch", 5.into()),
        ("grace_seconds", 5.0.into()),
        ("recipe", "cifar".into()),
        ("samples", 40.into()),
        ("version", env!("CARGO_PKG_VERSION").into()),
    ] {
        assert_eq!(start[key], value, "{key} of {start}");
    }
    let (joined, left) = (of(&events, "consumer_joined"), of(&events, "consumer_left"));
    // The daemon may end before it sees the second one leave.
    assert!(joined.len() == 2 && !left.is_empty());
    assert_eq!(joined[0]["pid"], left[0]["pid"]);
    assert_eq!(
        (&joined[0]["first"], &joined[0]["name"]),
        (&1.into(), &"ddas-loader".into())
    );
    let epochs = of(&events, "epoch_end");
    assert_eq!(epochs.len(), 2);
    assert_eq!(
        (&epochs[1]["epoch"], &epochs[1]["images"]),
        (&1.into(), &40.into())
    );
    assert!(epochs[0]["read_seconds"].as_f64() > Some(0.0));
    let bad = of(&events, "bad_sample");
    assert_eq!(bad.len(), 2, "once in each epoch");
    assert_eq!(
        (&bad[0]["key"], &bad[0]["level"]),
        (&7.into(), &"WARN".into())
    );
    assert_eq!(of(&events, "end")[0]["batches"], 10);
    ended.succeeded();

    // Errors are objects, too; a level hides what is less.
    let failed = sandbox.run("serve missing.lmdb --name x --recipe cifar --epochs 1 --batch-size 8 --log json --log-level error");
    let lines = self::events(&failed.stderr);
    assert_eq!((lines.len(), &lines[0]["level"]), (1, &"ERROR".into()));
    assert!(
        lines[0]["message"]
            .as_str()
            .unwrap()
            .contains("missing.lmdb")
    );
    assert_eq!(failed.status.code(), Some(1));
}

#[test]
fn the_log_is_chosen_by_flags_and_by_a_variable() {
    let sandbox = Sandbox::new();
    let dataset = sandbox.dataset("noise.lmdb", 16);
    let serve = format!(
        "serve {} --name form --recipe cifar --epochs 1 --batch-size 8",
        dataset.display()
    );
    let run = |flags: &str, variable: &str| {
        let daemon = sandbox.start_with(&format!("{serve} {flags}"), &[("DDAS_LOG", variable)]);
        // Waits for the daemon by itself.
        sandbox
            .run("consume form --connect-timeout 30 --log-level error")
            .succeeded();
        daemon.end()
    };
    let text = run("--log text", "");
    for line in text.stderr.lines() {
        let mut words = line.split_whitespace();
        assert!(
            words
                .next()
                .is_some_and(|time| time.starts_with("20") && time.ends_with('Z')),
            "{line}"
        );
        assert!(words.next().is_some_and(|level| level == "INFO"), "{line}");
    }
    assert!(text.stderr.contains("ready: ") && text.stderr.contains("joined at batch 1"));
    assert!(run("", "json").stderr.starts_with('{'));
    assert!(run("--log plain", "json").stderr.starts_with("ready: "));
    assert_eq!(run("", "warn").stderr, "");
    assert_eq!(run("--log-level off", "debug").stderr, "");
    let wrong = sandbox
        .start_with("status form", &[("DDAS_LOG", "loud")])
        .end();
    assert_eq!(wrong.status.code(), Some(2));
    assert!(wrong.stderr.contains("DDAS_LOG=loud"), "{}", wrong.stderr);
}

#[test]
fn an_eviction_is_logged_and_counted() {
    let sandbox = Sandbox::new();
    let dataset = sandbox.dataset("noise.lmdb", 400);
    let daemon = sandbox.serve(&format!(
        "{} --name evict --recipe cifar --epochs 1 --batch-size 4 --slots 2 --evict-after 0.2",
        dataset.display()
    ));
    let mut lazy = sandbox.connect("evict", 0);
    let held = lazy.receive(LONG).unwrap();
    let mut busy = sandbox.connect("evict", 0);
    while busy.receive(LONG).unwrap().is_some() {}
    let line = daemon.stderr_line("warning: consumer ");
    let who = format!("process {} (cli_observe", std::process::id());
    assert!(
        line.contains(&who) && line.contains("was evicted"),
        "{line}"
    );
    drop((held, busy, lazy));
    daemon.end().succeeded();
}

#[test]
fn status_says_where_everybody_is() {
    let sandbox = Sandbox::new();
    let dataset = sandbox.dataset("noise.lmdb", 60);
    let daemon = sandbox.serve(&format!(
        "{} --name where --recipe cifar --epochs 4 --batch-size 10 --slots 4 --start 1:4 --threads 2",
        dataset.display()
    ));
    let mut consumer = sandbox.connect("where", 0);
    // 1:4, 1:5 and 2:0 are released; 2:1 is held.
    for _ in 0..3 {
        drop(consumer.receive(LONG).unwrap().unwrap());
    }
    let held = consumer.receive(LONG).unwrap().unwrap();
    assert_eq!((held.epoch(), held.step()), (2, 1));
    let full = |status: &Value| status["ranks"][0]["ready"] == 4;
    let status = loop {
        let status = sandbox.status("where");
        if full(&status) {
            break status;
        }
    };
    assert_eq!(status["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(status["draining"], false);
    assert!(status["memory"]["resident_bytes"].as_u64() > status["memory"]["ring_bytes"].as_u64());
    let rank = &status["ranks"][0];
    // Seven batches are published: 1:4 to 2:4.
    for (key, value) in [
        ("published", 7),
        ("samples", 70),
        ("epoch", 2),
        ("step", 4),
        ("slots", 4),
        ("free", 0),
        ("writing", 0),
        ("ready", 4),
        ("steps_per_epoch", 6),
        ("epochs", 4),
        ("joined", 1),
        ("left", 0),
        ("evicted", 0),
    ] {
        assert_eq!(rank[key], value, "{key} of {rank}");
    }
    assert!(rank["overall"]["images_per_second"].as_f64() > Some(0.0));
    assert!(rank["slot_wait_seconds"].as_f64() > Some(0.0));
    let seen = &rank["consumers"][0];
    assert_eq!(seen["pid"], std::process::id());
    assert_eq!(
        seen["acknowledged"],
        serde_json::json!({"epoch": 2, "step": 0})
    );
    assert_eq!(seen["behind"], 4);
    assert!(seen["holding_seconds"].as_f64() > Some(0.0));
    assert_eq!(seen["waiting_seconds"], 0.0);
    assert!(seen["waited_seconds"].is_number());
    for report in ["total", "recent"] {
        let report = &status["daemon"][report];
        for stage in ["read", "decode", "augment", "write", "wait", "idle"] {
            assert!(report[format!("{stage}_seconds")].is_number(), "{stage}");
        }
        // Everything is made and nothing taken: the trainer is the limit, whatever the machine.
        assert!(report["limited_by"].is_string());
    }
    assert_eq!(status["daemon"]["ranks"][0]["rank"], 0);
    drop(held);
    while consumer.receive(LONG).unwrap().is_some() {}
    daemon.end().succeeded();
}

/// Next message of a fake service manager that begins with `start`.
fn message(manager: &UnixDatagram, start: &str) -> String {
    let mut buffer = [0; 4096];
    loop {
        let length = manager.recv(&mut buffer).expect("a message in time");
        let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
        if text.starts_with(start) {
            return text;
        }
    }
}

#[test]
fn the_service_manager_hears_of_readiness_life_and_end() {
    let sandbox = Sandbox::new();
    let dataset = sandbox.dataset("noise.lmdb", 16);
    let path = sandbox.path("notify.sock");
    let by_path = UnixDatagram::bind(&path).unwrap();
    let name = format!("ddas-observe-{}", std::process::id());
    let abstract_address = SocketAddr::from_abstract_name(&name).unwrap();
    let by_name = UnixDatagram::bind_addr(&abstract_address).unwrap();
    for (manager, socket) in [
        (&by_path, path.display().to_string()),
        (&by_name, format!("@{name}")),
    ] {
        manager.set_read_timeout(Some(LONG)).unwrap();
        let daemon = sandbox.start_with(
            &format!(
                "serve {} --name unit --recipe cifar --epochs 1 --batch-size 8",
                dataset.display()
            ),
            &[("NOTIFY_SOCKET", &socket), ("WATCHDOG_USEC", "200000")],
        );
        assert!(message(manager, "READY=1").contains("STATUS="));
        message(manager, "WATCHDOG=1");
        message(manager, "WATCHDOG=1");
        daemon.signal(Signal::TERM);
        message(manager, "STOPPING=1");
        daemon.end().succeeded();
    }
    // Nobody listens there: the daemon works all the same.
    let daemon = sandbox.start_with(
        &format!(
            "serve {} --name unit --recipe cifar --epochs 1 --batch-size 8",
            dataset.display()
        ),
        &[("NOTIFY_SOCKET", "/nonexistent/notify")],
    );
    daemon.stderr_line("ready: ");
    sandbox.run("consume unit").succeeded();
    daemon.end().succeeded();
}

/// A daemon that is told to stop, with a consumer that holds a batch and takes no more.
fn draining(sandbox: &Sandbox, grace: &str) -> (Running, ddas_loader::ring::Consumer) {
    let dataset = sandbox.dataset(&format!("grace-{grace}.lmdb"), 80);
    let daemon = sandbox.serve(&format!(
        "{} --name grace --recipe cifar --epochs 1000 --batch-size 8 --grace {grace}",
        dataset.display()
    ));
    let mut consumer = sandbox.connect("grace", 0);
    drop(consumer.receive(LONG).unwrap());
    daemon.signal(Signal::TERM);
    daemon.stderr_line("told to stop");
    (daemon, consumer)
}

#[test]
fn a_grace_period_ends_and_what_was_published_can_still_be_read() {
    let sandbox = Sandbox::new();
    let (daemon, mut consumer) = draining(&sandbox, "0.2");
    let ended = daemon.end();
    assert!(
        ended.stderr.contains("stopped by a signal"),
        "{}",
        ended.stderr
    );
    ended.succeeded();
    let mut batches = 0;
    while consumer.receive(LONG).unwrap().is_some() {
        batches += 1;
    }
    assert!(batches > 0);
}

#[test]
fn a_second_signal_ends_at_once() {
    let sandbox = Sandbox::new();
    for (signal, code) in [(Signal::TERM, 143), (Signal::INT, 130)] {
        let (daemon, consumer) = draining(&sandbox, "3600");
        assert_eq!(sandbox.status("grace")["draining"], true);
        daemon.signal(signal);
        assert_eq!(daemon.end().status.code(), Some(code));
        drop(consumer);
        std::fs::remove_dir_all(sandbox.path("grace-3600.lmdb")).unwrap();
    }
}
