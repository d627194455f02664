//! Packs class folders of images (a folder or a `.tar`), then reads everything back.
//!
//! ```sh
//! cargo run --release -p ddas-formats --example pack_folder -- photos.tar photos.lmdb
//! ```
//!
//! Only the headers of the images are checked here; `ddas-loader pack image-folder` decodes each one as well.

use std::error::Error;
use std::path::PathBuf;
use std::time::Instant;

use ddas_formats::{Dataset, PackOptions, pack_image_folder, verify};

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args_os().skip(1).map(PathBuf::from);
    let (Some(source), Some(out)) = (arguments.next(), arguments.next()) else {
        return Err("usage: pack_folder SOURCE OUT.lmdb".into());
    };
    let options = PackOptions {
        overwrite: true,
        progress: &|progress| eprint!("\r{} of {}", progress.done, progress.total),
        ..PackOptions::default()
    };
    let summary = pack_image_folder(&source, None, &out, &options)?;
    eprintln!();
    for note in &summary.notes {
        println!("note: {note}");
    }
    println!(
        "{} samples of {} classes, {} bytes, in {:.2} s: {:.0} samples/s",
        summary.samples,
        summary.classes,
        summary.bytes,
        summary.seconds,
        summary.samples as f64 / summary.seconds,
    );

    let start = Instant::now();
    let dataset = Dataset::open(&out)?;
    let opened = start.elapsed();
    let report = verify(&dataset, &|_| {})?;
    let seconds = start.elapsed().as_secs_f64();
    println!(
        "opened in {opened:?}; read back {} samples in {seconds:.2} s ({:.0} samples/s, {:.0} MB/s): {}",
        report.samples,
        report.samples as f64 / seconds,
        dataset.manifest().bytes as f64 / 1e6 / seconds,
        if report.is_sound() {
            "sound"
        } else {
            "damaged"
        },
    );
    println!("content hash {}", dataset.manifest().content_hash);
    Ok(())
}
