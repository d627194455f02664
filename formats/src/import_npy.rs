//! Policies in the form of the authors' search program: a pickled dict in a `.npy` file.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use crate::pickle::{self, Id, Pickle};
use crate::{Error, Policy, Provenance, Result, SearchSpace, Snapshot};

const MAX_FILE_BYTES: u64 = 64 << 20;
const MAX_HEADER_BYTES: usize = 64 << 10;
/// The probabilities were computed as f32; sums further from 1 than this are not rounding.
const ROUNDING: f64 = 0.01;
/// Sums closer to 1 than this are left as they are.
const NEGLIGIBLE: f64 = 1e-5;

/// Reads a policy file of the authors' search program.
///
/// It is a `.npy` file with one pickled dict: `dis_ps`, for each snapshot the probabilities of the operations, and
/// `w0s_mt`, for each the total probability. The pickle is read without executing anything. Which operations are meant
/// is not in the file: they are those of `space`, or, for 52 of them without a `space`, of `released52-as-run`,
/// with which the published files were searched. The total probabilities stay as they are, and are not smoothed.
///
/// # Errors
/// [`Error::Io`] when the file cannot be read; [`Error::File`] when it is no such file, refers to anything but numpy
/// arrays, holds no probabilities, or holds another number of them than the space has operations.
///
/// ```no_run
/// use ddas_formats::import_authors_policy;
///
/// let policy = import_authors_policy("wresnet40x2_cifar10.npy".as_ref(), None)?;
/// policy.write("policy.json".as_ref())?;
/// # Ok::<(), ddas_formats::Error>(())
/// ```
pub fn import_authors_policy(path: &Path, space: Option<SearchSpace>) -> Result<Policy> {
    let bytes = read_file(path)?;
    let snapshots = pickled(&bytes)
        .and_then(|pickled| {
            let pickle = pickle::read(pickled)?;
            snapshots(&pickle)
        })
        .map_err(|reason| Error::file(path, reason))?;
    let operations = snapshots
        .first()
        .map_or(0, |snapshot| snapshot.operation_probabilities().len());
    let space = match space {
        Some(space) => space,
        None if operations == 52 => SearchSpace::named("released52-as-run")?,
        None => {
            let reason = format!(
                "{operations} operations; the file does not say which. The published search spaces have 52: \
                 name the space that was searched"
            );
            return Err(Error::file(path, reason));
        }
    };
    let provenance = Provenance {
        preset: path
            .file_name()
            .map(|name| format!("imported from {}", name.to_string_lossy())),
        ..Provenance::default()
    };
    let policy = Policy::new(space, snapshots).map_err(|error| error.in_file(path))?;
    Ok(policy.with_provenance(provenance))
}

fn read_file(path: &Path) -> Result<Vec<u8>> {
    let file = File::open(path).map_err(Error::io(path))?;
    let mut bytes = Vec::new();
    file.take(MAX_FILE_BYTES + 1)
        .read_to_end(&mut bytes)
        .map_err(Error::io(path))?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(Error::file(
            path,
            format!("more than {MAX_FILE_BYTES} bytes; a policy has far fewer"),
        ));
    }
    Ok(bytes)
}

/// The pickle in a `.npy` file of one object (numpy's `numpy/lib/format.py` specifies the header).
fn pickled(bytes: &[u8]) -> std::result::Result<&[u8], String> {
    let Some(rest) = bytes.strip_prefix(b"\x93NUMPY") else {
        let first = &bytes[..bytes.len().min(16)];
        return Err(format!(
            "not a .npy file: begins with \"{}\"",
            first.escape_ascii()
        ));
    };
    let cut = || String::from("a .npy file cut short in its header");
    let (length, rest) = match rest {
        [1, _, low, high, rest @ ..] => (usize::from(*high) << 8 | usize::from(*low), rest),
        [2 | 3, _, a, b, c, d, rest @ ..] => (u32::from_le_bytes([*a, *b, *c, *d]) as usize, rest),
        [version, _, _, _, ..] => {
            return Err(format!(".npy format {version}; 1, 2 and 3 are read"));
        }
        _ => return Err(cut()),
    };
    if length > MAX_HEADER_BYTES {
        return Err(format!(
            "a .npy header of {length} bytes; at most {MAX_HEADER_BYTES} are read"
        ));
    }
    let (header, pickled) = rest.split_at_checked(length).ok_or_else(cut)?;
    // The header is a Python dict as text; the only one that is wanted has a single spelling but for its spaces.
    let dense: Vec<u8> = header
        .iter()
        .copied()
        .filter(|byte| !byte.is_ascii_whitespace())
        .collect();
    if dense != b"{'descr':'|O','fortran_order':False,'shape':(),}" {
        let shown = &header[..header.len().min(100)];
        return Err(format!(
            "not the file of one pickled object that a search writes; its header is \"{}\"",
            shown.escape_ascii().to_string().trim_end()
        ));
    }
    Ok(pickled)
}

fn snapshots(pickle: &Pickle<'_>) -> std::result::Result<Vec<Snapshot>, String> {
    let [dict] = *pickle.elements(pickle.root())? else {
        return Err("more than one object where a single dict is expected".into());
    };
    let operation_probabilities = pickle.elements(pickle.entry(dict, "dis_ps")?)?;
    let total_probabilities = pickle.floats(pickle.entry(dict, "w0s_mt")?)?;
    if operation_probabilities.len() != total_probabilities.len() {
        return Err(format!(
            "`dis_ps` has {} snapshots, `w0s_mt` has {}",
            operation_probabilities.len(),
            total_probabilities.len()
        ));
    }
    let snapshot = |(index, (&operations, &total)): (usize, (&Id, &f64))| {
        let operations = normalised(pickle.floats(operations)?)
            .map_err(|reason| format!("`dis_ps[{index}]`: {reason}"))?;
        Snapshot::new(total, operations).map_err(|error| format!("snapshot {index}: {error}"))
    };
    operation_probabilities
        .iter()
        .zip(&total_probabilities)
        .enumerate()
        .map(snapshot)
        .collect()
}

/// Takes the rounding of f32 out of the sum.
fn normalised(mut probabilities: Vec<f64>) -> std::result::Result<Vec<f64>, String> {
    let sum: f64 = probabilities.iter().sum();
    if !(1.0 - ROUNDING..=1.0 + ROUNDING).contains(&sum) {
        return Err(format!("the probabilities sum to {sum}; expected 1"));
    }
    if (sum - 1.0).abs() > NEGLIGIBLE {
        probabilities
            .iter_mut()
            .for_each(|probability| *probability /= sum);
    }
    Ok(probabilities)
}
