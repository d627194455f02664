//! Against what Python reads and writes, and against hostile bytes.

use proptest::prelude::*;

use super::fixtures::{PROTOCOLS, PYTHON_2, PYTHON_2_TEXT};
use super::object::Object;
use super::{Pickle, read};

fn entry(pickle: &Pickle<'_>, key: &str) -> super::Id {
    pickle.entry(pickle.root(), key).unwrap()
}

#[test]
fn all_protocols_give_what_python_pickled() {
    for (protocol, bytes) in PROTOCOLS.into_iter().enumerate() {
        let pickle = read(bytes).unwrap_or_else(|reason| panic!("protocol {protocol}: {reason}"));
        let at = |key| entry(&pickle, key);
        assert_eq!(pickle.integers(at("labels")), Ok(vec![3, -70000]));
        assert_eq!(
            pickle.strings(at("names")),
            Ok(vec!["a'b".to_owned(), "é\\€".to_owned()])
        );
        assert_eq!(
            pickle.floats(at("x")),
            Ok(vec![1.5, f64::from(0.1f32), -7.0])
        );
        assert_eq!(pickle.floats(at("n")), Ok(vec![0.25, -2.0]));
        assert!(matches!(
            pickle.get(at("big")),
            Object::Integer(0x100_0000_0000)
        ));
        let t = pickle.elements(at("t")).unwrap();
        assert!(matches!(
            (pickle.get(t[0]), pickle.get(t[1])),
            (Object::None, Object::Bool(true))
        ));
        let (rows, columns, data) = pickle.byte_matrix(at("data")).unwrap();
        assert_eq!(
            (rows, columns, &*data),
            (2, 6, &[0, 10, 92, 39, 200, 255, 1, 2, 3, 4, 5, 6][..])
        );
        let (rows, columns, data) = pickle.byte_matrix(at("f")).unwrap();
        assert_eq!((rows, columns, &*data), (2, 3, &[1, 2, 3, 4, 5, 6][..]));
    }
}

#[test]
fn pickles_of_python_2_are_read() {
    for (bytes, data) in [
        (PYTHON_2, [128, 255, 0, 1, 2, 3]),
        (PYTHON_2_TEXT, [128, 255, 0, 10, 39, 92]),
    ] {
        let pickle = read(bytes).unwrap();
        assert_eq!(pickle.integers(entry(&pickle, "labels")), Ok(vec![6, 9]));
        let (rows, columns, found) = pickle.byte_matrix(entry(&pickle, "data")).unwrap();
        assert_eq!((rows, columns, &*found), (2, 3, &data[..]));
    }
    let pickle = read(PYTHON_2).unwrap();
    assert_eq!(
        pickle.strings(entry(&pickle, "filenames")),
        Ok(vec!["a.png".to_owned(), "b.png".to_owned()])
    );
}

#[test]
fn names_that_could_do_harm_are_refused_by_name() {
    // What `pickle.dumps` gives for objects whose `__reduce__` calls these, in several protocols.
    let hostile: [(&[u8], &str); 7] = [
        (b"cos\nsystem\n(S'id'\ntR.", "`os.system`"),
        (b"\x80\x02cposix\nsystem\nq\0X\x02\0\0\0idq\x01\x85q\x02Rq\x03.", "`posix.system`"),
        (
            b"\x80\x04\x95\x1c\0\0\0\0\0\0\0\x8c\x08builtins\x94\x8c\x04eval\x94\x93\x94\x8c\x0212\x94\x85\x94R\x94.",
            "`builtins.eval`",
        ),
        (b"(ios\nsystem\n.", "`os.system`"),
        (b"\x80\x04\x8c\x05numpy\x8c\x04load\x93.", "`numpy.load`"),
        (b"cnumpy.core.multiarray\nfromfile\n.", "`numpy.core.multiarray.fromfile`"),
        (b"c\xff\n\x1b[2J\n.", "`\\xff.\\x1b[2J`"),
    ];
    for (bytes, name) in hostile {
        let reason = read(bytes).unwrap_err();
        assert!(
            reason.contains(name) && reason.contains("nothing was executed"),
            "{reason}"
        );
    }
}

#[test]
fn calls_that_no_array_needs_are_refused() {
    let refused: [(&[u8], &str); 11] = [
        (b"\x80\x04)\x81.", "instruction 0x81"),
        (b"Pid\n.", "instruction 0x50 ('P')"),
        (b"\x97.", "instruction 0x97"),
        (b"\x80\x09.", "protocol 9"),
        (b"](R.", "the stack is empty"),
        (b"])R.", "a call of a list"),
        (
            b"c_codecs\nencode\n(Va\nVutf8\ntR.",
            "Encode with arguments it does not take: a string, a string",
        ),
        (
            b"c_codecs\nencode\n(V\\u20ac\nVlatin1\ntR.",
            "beyond latin1",
        ),
        (b"cnumpy\ndtype\n(Vc16\ntR.", "the type `c16`"),
        (
            b"cnumpy\ndtype\n(Vf4\ntR(I3\nV<\nN(Va\ntNI-1\nI-1\nI0\ntb.",
            "fields",
        ),
        (b"]N(b.", "the stack is empty"),
    ];
    for (bytes, expected) in refused {
        let reason = read(bytes).unwrap_err();
        assert!(reason.contains(expected), "{reason}");
    }
}

#[test]
fn nesting_costs_no_stack() {
    // The two ways to nest: open containers on the stack, and containers in containers.
    let reason = read(&[b']'; 40_000]).unwrap_err();
    assert!(reason.contains("cut short"), "{reason}");
    assert!(
        read(&[&[b']'; 40_000][..], b"."].concat())
            .unwrap_err()
            .contains("40000 objects on the stack")
    );
    let nested = [&[b']'; 40_000][..], &[b'a'; 39_999], b"."].concat();
    let pickle = read(&nested).unwrap();
    assert_eq!(pickle.elements(pickle.root()).unwrap().len(), 1);
    assert!(pickle.floats(pickle.root()).is_err());
    drop(pickle);
    let tuples = [b"N", &[0x85; 500_000][..], b"."].concat();
    assert!(read(&tuples).is_ok());
    assert!(read(&[b'('; 40_000]).is_err());
    // A list that holds itself.
    let circular = read(b"]q\0h\0a.").unwrap();
    assert!(
        circular
            .floats(circular.root())
            .unwrap_err()
            .contains("a list where a number is expected")
    );
}

#[test]
fn lengths_are_believed_only_as_far_as_there_are_bytes() {
    for bytes in [
        &b"\x8e\xff\xff\xff\xff\xff\xff\xff\xff"[..],
        b"\x96\0\0\0\0\0\0\0\x80",
        b"\x8d\xff\xff\xff\xff\xff\xff\xff\x7f",
        b"X\xff\xff\xff\xffabc",
        b"T\xff\xff\xff\xffabc",
        b"\x95\xff\xff",
    ] {
        assert!(
            read(bytes).unwrap_err().contains("cut short or damaged"),
            "{bytes:?}"
        );
    }
    assert!(
        read(b"\x8b\xff\xff\xff\x7f.")
            .unwrap_err()
            .contains("an integer of 2147483647 bytes")
    );
    assert!(
        read(b"I99999999999999999999\n.")
            .unwrap_err()
            .contains("where a number is expected")
    );
    // Shapes whose product overflows, and such that the data does not fill.
    let shaped = |shape: &[u8]| {
        let state: [&[u8]; 5] = [
            b"cnumpy._core.numeric\n_frombuffer\n(C\x01acnumpy\ndtype\n(Vu1\ntR",
            b"(",
            shape,
            b"t",
            b"VC\ntR.",
        ];
        read(&state.concat()).unwrap_err()
    };
    assert!(shaped(b"L9223372036854775807L\nL9223372036854775807L\n").contains("over 1 bytes"));
    assert!(shaped(b"I2\n").contains("an array of shape [2] over 1 bytes"));
    assert!(shaped(b"I-1\n").contains("the side -1"));
}

#[test]
fn work_is_bounded() {
    assert!(
        read(&b"N0".repeat(2_000_000))
            .unwrap_err()
            .contains("instructions")
    );
    // One string, converted again and again: 100 kB that would become 1 GB.
    let mut bomb = b"c_codecs\nencode\nq\0(X\xa0\x86\x01\0".to_vec();
    bomb.extend([b'a'; 100_000]);
    bomb.extend(b"Vlatin1\ntq\x01");
    bomb.extend(b"h\0h\x01R0".repeat(10_000));
    assert!(
        read(&bomb)
            .unwrap_err()
            .contains("more bytes than the pickle has")
    );
}

proptest! {
    #[test]
    fn any_bytes_give_a_verdict(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = read(&bytes);
    }

    /// Changed, shortened and spliced pickles: a verdict, and values that can be asked for without a panic.
    #[test]
    fn damaged_pickles_give_a_verdict(
        which in 0..8usize,
        changes in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 0..6),
        cut in any::<proptest::sample::Index>(),
        shorten: bool,
    ) {
        let mut bytes = [&PROTOCOLS[..], &[PYTHON_2, PYTHON_2_TEXT]].concat()[which].to_vec();
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        if shorten {
            bytes.truncate(cut.index(bytes.len()));
        }
        if let Ok(pickle) = read(&bytes) {
            for key in ["labels", "data", "names", "x", "n", "f", "t"] {
                let Ok(id) = pickle.entry(pickle.root(), key) else { continue };
                let _ = (pickle.floats(id), pickle.integers(id), pickle.strings(id), pickle.byte_matrix(id));
            }
        }
    }
}
