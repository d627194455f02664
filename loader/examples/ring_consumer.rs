//! A trainer's end of the ring: joins a running daemon and looks at every batch in place.
//!
//!     ddas-loader serve DATASET.lmdb --name train --recipe cifar --epochs 3 --batch-size 128 &
//!     cargo run --release -p ddas-loader --example ring_consumer -- train
//!
//! Needs nothing but the ring: a program of your own builds with
//! `ddas-loader = { version = "...", default-features = false }`.

use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use ddas_loader::Placement;
use ddas_loader::ring::{ConnectOptions, Consumer, Error};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

fn main() -> Result<()> {
    let Some(name) = std::env::args().nth(1) else {
        eprintln!("usage: ring_consumer NAME");
        std::process::exit(2);
    };
    // Under torchrun, srun or mpirun every process reads the ring of its own rank.
    let placement = Placement::of_this_process(None, None, None, true)?;
    println!("{placement}");
    read(&name, placement.rank, None, &mut std::io::stdout())
}

/// Reads the stream `name` to its end and says what came. `dir`: where its socket is, if not in the usual place.
pub(crate) fn read(
    name: &str,
    rank: u32,
    dir: Option<PathBuf>,
    out: &mut impl Write,
) -> Result<()> {
    let options = ConnectOptions {
        rank,
        timeout: Duration::from_secs(10),
        dir,
        ..ConnectOptions::default()
    };
    let mut consumer = Consumer::connect(name, options)?;
    let info = consumer.info().clone();
    writeln!(
        out,
        "{}: {} epochs of {} batches of {} samples, {} {} {:?}",
        info.dataset,
        info.epochs,
        info.steps_per_epoch,
        info.batch_size,
        info.dtype,
        info.layout,
        info.shape,
    )?;
    let mut samples = 0;
    loop {
        // A long wait is no error as long as the daemon lives: ask again, for the same batch.
        let batch = match consumer.receive(Duration::from_secs(5)) {
            Ok(Some(batch)) => batch,
            Ok(None) => break,
            Err(Error::TimedOut { waited, .. }) => {
                writeln!(out, "waiting for {waited:.1?}")?;
                continue;
            }
            Err(error) => return Err(error.into()),
        };
        // `images` is the shared memory itself; the slot is the daemon's again when `batch` is dropped.
        let sum: u64 = batch.images().iter().map(|byte| u64::from(*byte)).sum();
        // Only needed where the daemon may take slots back (`--evict-after`): was all that was read this batch?
        batch.validate()?;
        samples += batch.samples();
        if batch.last_of_epoch() {
            let mean = sum as f64 / batch.images().len().max(1) as f64;
            writeln!(
                out,
                "epoch {}: {samples} samples, mean byte of the last batch {mean:.1}",
                batch.epoch()
            )?;
            samples = 0;
        }
    }
    writeln!(out, "the stream has ended")?;
    Ok(())
}
