//! Policies in the form of the authors' search program: a pickled dict in a `.npy` file.

use std::path::Path;

use crate::pickle::{self, Id, Pickle};
use crate::small_file::read_small_file;
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
    let bytes = read_small_file(path, MAX_FILE_BYTES + 1).map_err(Error::io(path))?;
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
        let shown = String::from_utf8_lossy(&header[..header.len().min(100)]);
        let shown = shown
            .trim_end()
            .replace(|letter: char| letter.is_control(), "?");
        return Err(format!(
            "not the file of one pickled object that a search writes; its header is `{shown}`"
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Operation;

    /// Written by numpy 2.4.6; the second by `np.save("policy.npy", value)`, the first with protocol 2 as the authors' numpy
    /// did:
    ///
    /// ```python
    /// value = {
    ///     "dis_ps": [np.array([0.25, 0.75], np.float32), np.array([0.1, 0.9], np.float32)],
    ///     "w0s_mt": [0.35, np.float64(0.218)],
    ///     "tps": [0.35, 0.284, 0.218],
    /// }
    /// ```
    const FILES: [&[u8]; 2] = [
        b"\x93NUMPY\x01\0v\0{'descr': '|O', 'fortran_order': False, 'shape': (), }                                                               \n\x80\x02cnumpy._core.multiarray\n_reconstruct\nq\0cnumpy\nndarray\nq\x01K\0\x85q\x02c_codecs\nencode\nq\x03X\x01\0\0\0bq\x04X\x06\0\0\0latin1q\x05\x86q\x06Rq\x07\x87q\x08Rq\t(K\x01)cnumpy\ndtype\nq\nX\x02\0\0\0O8q\x0b\x89\x88\x87q\x0cRq\r(K\x03X\x01\0\0\0|q\x0eNNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK?tq\x0fb\x89]q\x10}q\x11(X\x06\0\0\0dis_psq\x12]q\x13(h\0h\x01K\0\x85q\x14h\x07\x87q\x15Rq\x16(K\x01K\x02\x85q\x17h\nX\x02\0\0\0f4q\x18\x89\x88\x87q\x19Rq\x1a(K\x03X\x01\0\0\0<q\x1bNNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\0tq\x1cb\x89h\x03X\t\0\0\0\0\0\xc2\x80>\0\0@?q\x1dh\x05\x86q\x1eRq\x1ftq bh\0h\x01K\0\x85q!h\x07\x87q\"Rq#(K\x01K\x02\x85q$h\x1a\x89h\x03X\x0b\0\0\0\xc3\x8d\xc3\x8c\xc3\x8c=fff?q%h\x05\x86q&Rq'tq(beX\x06\0\0\0w0s_mtq)]q*(G?\xd6ffffffcnumpy._core.multiarray\nscalar\nq+h\nX\x02\0\0\0f8q,\x89\x88\x87q-Rq.(K\x03h\x1bNNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\0tq/bh\x03X\r\0\0\0\xc2\x81\xc2\x95C\xc2\x8bl\xc3\xa7\xc3\x8b?q0h\x05\x86q1Rq2\x86q3Rq4eX\x03\0\0\0tpsq5]q6(G?\xd6ffffffG?\xd2-\x0eV\x04\x18\x93G?\xcb\xe7l\x8bC\x95\x81euatq7b.",
        b"\x93NUMPY\x01\0v\0{'descr': '|O', 'fortran_order': False, 'shape': (), }                                                               \n\x80\x04\x95\x82\x01\0\0\0\0\0\0\x8c\x16numpy._core.multiarray\x94\x8c\x0c_reconstruct\x94\x93\x94\x8c\x05numpy\x94\x8c\x07ndarray\x94\x93\x94K\0\x85\x94C\x01b\x94\x87\x94R\x94(K\x01)h\x03\x8c\x05dtype\x94\x93\x94\x8c\x02O8\x94\x89\x88\x87\x94R\x94(K\x03\x8c\x01|\x94NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK?t\x94b\x89]\x94}\x94(\x8c\x06dis_ps\x94]\x94(h\x02h\x05K\0\x85\x94h\x07\x87\x94R\x94(K\x01K\x02\x85\x94h\x0b\x8c\x02f4\x94\x89\x88\x87\x94R\x94(K\x03\x8c\x01<\x94NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\0t\x94b\x89C\x08\0\0\x80>\0\0@?\x94t\x94bh\x02h\x05K\0\x85\x94h\x07\x87\x94R\x94(K\x01K\x02\x85\x94h\x1b\x89C\x08\xcd\xcc\xcc=fff?\x94t\x94be\x8c\x06w0s_mt\x94]\x94(G?\xd6ffffffh\0\x8c\x06scalar\x94\x93\x94h\x0b\x8c\x02f8\x94\x89\x88\x87\x94R\x94(K\x03h\x1cNNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\0t\x94bC\x08\x81\x95C\x8bl\xe7\xcb?\x94\x86\x94R\x94e\x8c\x03tps\x94]\x94(G?\xd6ffffffG?\xd2-\x0eV\x04\x18\x93G?\xcb\xe7l\x8bC\x95\x81euat\x94b.",
    ];

    fn import(bytes: &[u8], space: Option<SearchSpace>) -> Result<Policy> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("policy.npy");
        std::fs::write(&path, bytes).unwrap();
        import_authors_policy(&path, space)
    }

    fn two() -> SearchSpace {
        SearchSpace::new("two", 2, vec![Operation::Identity, Operation::FlipLR]).unwrap()
    }

    fn message(bytes: &[u8]) -> String {
        import(bytes, Some(two())).unwrap_err().to_string()
    }

    #[test]
    fn snapshots_are_those_that_numpy_reads() {
        for file in FILES {
            let policy = import(file, Some(two())).unwrap();
            assert_eq!(policy.snapshots().len(), 2);
            assert_eq!(policy.snapshots()[0].total_probability(), 0.35);
            assert_eq!(
                policy.snapshots()[0].operation_probabilities(),
                [0.25, 0.75]
            );
            assert_eq!(policy.snapshots()[1].total_probability(), 0.218);
            assert_eq!(
                policy.snapshots()[1].operation_probabilities(),
                [f64::from(0.1f32), f64::from(0.9f32)]
            );
            assert_eq!(policy.smoothing_window(), 1);
            assert_eq!(policy.search_space().name(), "two");
        }
    }

    #[test]
    fn fifty_two_operations_are_those_of_the_authors_code_as_it_ran() {
        let uniform = (1.0f64 / 52.0).to_be_bytes();
        let float = |value: f64| [&b"G"[..], &value.to_be_bytes()].concat();
        let start = FILES[0]
            .windows(3)
            .position(|window| window == b"}q\x11")
            .unwrap();
        // The dict with lists of Python's floats in place of arrays, then the end of the array around it.
        let file = [
            &FILES[0][..start],
            b"}(U\x06dis_ps](](",
            &[&b"G"[..], &uniform].concat().repeat(52),
            b"eeU\x06w0s_mt](",
            &float(0.35),
            b"euatb.",
        ]
        .concat();
        let policy = import(&file, None).unwrap();
        assert_eq!(
            policy.search_space(),
            &SearchSpace::named("released52-as-run").unwrap()
        );
        assert_eq!(
            policy.snapshots()[0].operation_probabilities(),
            [1.0 / 52.0; 52]
        );
    }

    #[test]
    fn what_the_file_does_not_say_has_to_be_said() {
        let error = import(FILES[0], None).unwrap_err().to_string();
        assert!(
            error.contains("policy.npy: 2 operations; the file does not say which"),
            "{error}"
        );
        let error = import(FILES[0], Some(SearchSpace::named("paper68").unwrap()))
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("policy.npy") && error.contains("68"),
            "{error}"
        );
    }

    #[test]
    fn other_files_are_refused_with_what_they_are() {
        assert!(message(b"").contains("not a .npy file"));
        assert!(message(b"PK\x03\x04").contains("begins with \"PK\\x03\\x04\""));
        assert!(message(b"\x93NUMPY\x01\0").contains("cut short"));
        assert!(message(b"\x93NUMPY\x02\0\xff\xff\xff\xff").contains("header of 4294967295 bytes"));
        assert!(message(b"\x93NUMPY\x09\0\0\0").contains("format 9"));
        let plain =
            b"\x93NUMPY\x01\0\x3b\0{'descr': '<f8', 'fortran_order': False, 'shape': (3,), }    \n";
        assert!(
            message(plain).contains("its header is `{'descr': '<f8'"),
            "{}",
            message(plain)
        );
        for file in FILES {
            for length in 0..file.len() {
                assert!(
                    import(&file[..length], Some(two())).is_err(),
                    "cut at {length}"
                );
            }
        }
    }

    #[test]
    fn damaged_values_are_named() {
        let replaced = |from: &[u8], to: &[u8]| {
            let at = FILES[0]
                .windows(from.len())
                .position(|window| window == from)
                .unwrap();
            message(&[&FILES[0][..at], to, &FILES[0][at + from.len()..]].concat())
        };
        assert!(
            replaced(b"w0s_mt", b"w0s_mx")
                .contains("no key `w0s_mt`; the keys are `dis_ps`, `w0s_mx`, `tps`")
        );
        // 0.25 becomes 4.0, then 0.35 becomes -0.35.
        let sum = replaced(b"\0\0\xc2\x80>", b"\0\0\xc2\x80@");
        assert!(
            sum.contains("`dis_ps[0]`: the probabilities sum to 4.75"),
            "{sum}"
        );
        let negative = replaced(b"G?\xd6", b"G\xbf\xd6");
        assert!(
            negative.contains("snapshot 0: total_probability: -0.35"),
            "{negative}"
        );
        let hostile = replaced(b"cnumpy._core.multiarray\n_reconstruct\n", b"cos\nsystem\n");
        assert!(hostile.contains("it refers to `os.system`"), "{hostile}");
    }

    #[test]
    fn only_rounding_is_taken_out_of_sums() {
        assert_eq!(normalised(vec![0.5, 0.500004]), Ok(vec![0.5, 0.500004]));
        assert_eq!(
            normalised(vec![0.5, 0.505]),
            Ok(vec![0.5 / 1.005, 0.505 / 1.005])
        );
        assert!(normalised(vec![0.5, 0.6]).is_err());
        assert!(normalised(vec![f64::NAN]).is_err());
        assert!(normalised(Vec::new()).is_err());
    }
}
