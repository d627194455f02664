use super::*;
use crate::ring::protocol::{StreamNormalization, StreamPosition};

// Packed by Python's struct module, checksums by a bitwise CRC-32C.
const HEADER: &str = "4444415352494e47020000000008000088776655443322110300000000100000001000000000000000002a36fe9c97177766554433221100efcdab89674523010000003f0000003f0000003f0000803e0000803e0000803e0400000001020100020000000200000003000000000000000100000000000000000000003a19dbcb";
const HEADER_MIXED: &str = "4444415352494e47020000000008000088776655443322110300000000100000001000000000000000002a36fe9c97177766554433221100efcdab89674523010000003f0000003f0000003f0000803e0000803e0000803e0400000001020101020000000200000003000000000000000100000000000000000000001fd2003c";
const DESCRIPTOR: &str = "0500000000000000000000000001000003000000030000000600000001000000002000000000000024000000000000004020000000000000802000000000000003000000020000000200000003000000010204000000000000000000000000000000000000000000000000000000000000000000821ac9ad";
const DESCRIPTOR_MIXED: &str = "05000000000000000000000000010000030000000300000006000000010000000020000000000000240000000000000040200000000000008020000000000000030000000200000002000000030000000102040000000000c02000000000000000210000000000000000000000000000000000002170ccaa";

const SHAPE: RingShape = RingShape {
    slots: 3,
    batch_size: 4,
    sample_bytes: 12,
    mixes: false,
};
const MIXED: RingShape = RingShape {
    mixes: true,
    ..SHAPE
};
const META: BatchMeta = BatchMeta {
    epoch: 3,
    step: 1 << 40,
    samples: 3,
    snapshot: Some(6),
    last_of_epoch: true,
};

fn info() -> StreamInfo {
    StreamInfo {
        protocol: 2,
        daemon_pid: 1,
        dataset: "toy".to_owned(),
        dataset_hash: "00112233445566778899aabbccddeeff".to_owned(),
        samples: 1,
        classes: 1,
        epochs: 1,
        batch_size: 4,
        global_batch_size: 4,
        steps_per_epoch: 1,
        world_size: 1,
        rank: 0,
        dtype: "u8".to_owned(),
        layout: "nhwc".to_owned(),
        shape: [2, 2, 3],
        normalization: StreamNormalization {
            mean: [0.5; 3],
            std: [0.25; 3],
        },
        recipe: "toy".to_owned(),
        recipe_digest: String::new(),
        policy_digest: Some("0123456789abcdef".to_owned()),
        seed: 0,
        slots: 3,
        start: StreamPosition::default(),
        last: "pad".to_owned(),
        mixes: false,
    }
}

fn bytes<const N: usize>(hex: &str) -> [u8; N] {
    std::array::from_fn(|at| u8::from_str_radix(&hex[2 * at..2 * at + 2], 16).unwrap())
}

fn header() -> (Header, Geometry) {
    let geometry = Geometry::new(SHAPE).unwrap();
    let header = Header::new(
        &info(),
        &geometry,
        0x1122_3344_5566_7788,
        1_700_000_000_000_000_000,
    );
    (header.unwrap(), geometry)
}

#[test]
fn a_ring_lies_in_memory_as_specified() {
    let (header, geometry) = header();
    assert_eq!(
        (geometry.labels, geometry.indices, geometry.slot_bytes),
        (64, 128, 4096)
    );
    assert_eq!((geometry.payload, geometry.segment_bytes), (4096, 4096 * 4));
    assert_eq!(
        [1, 2, 3, 4, 5].map(|sequence| geometry.slot_of(sequence)),
        [0, 1, 2, 0, 1]
    );
    assert_eq!(header.encode(), bytes(HEADER));
    assert_eq!(
        Header::decode(&bytes(HEADER), 4096 * 4).unwrap(),
        (header, geometry)
    );
}

#[test]
fn a_descriptor_lies_in_memory_as_specified() {
    let (header, geometry) = header();
    let descriptor = Descriptor {
        sequence: 5,
        meta: META,
    };
    assert_eq!(descriptor.encode(&geometry, &header), bytes(DESCRIPTOR));
    let decoded = Descriptor::decode(&bytes(DESCRIPTOR), 5, &geometry, &header).unwrap();
    assert_eq!(decoded, descriptor);
    let without = Descriptor {
        sequence: 5,
        meta: BatchMeta {
            snapshot: None,
            ..META
        },
    };
    let encoded = without.encode(&geometry, &header);
    assert_eq!(
        Descriptor::decode(&encoded, 5, &geometry, &header).unwrap(),
        without
    );
}

#[test]
fn rings_of_mixed_batches_have_two_arrays_more() {
    let geometry = Geometry::new(MIXED).unwrap();
    assert_eq!(
        (geometry.indices, geometry.mixed_labels, geometry.weights),
        (128, 192, 256)
    );
    let info = StreamInfo {
        mixes: true,
        ..info()
    };
    let header = Header::new(
        &info,
        &geometry,
        0x1122_3344_5566_7788,
        1_700_000_000_000_000_000,
    )
    .unwrap();
    assert_eq!(header.encode(), bytes(HEADER_MIXED));
    assert_eq!(
        Header::decode(&bytes(HEADER_MIXED), 4096 * 4).unwrap(),
        (header.clone(), geometry)
    );
    let descriptor = Descriptor {
        sequence: 5,
        meta: META,
    };
    assert_eq!(
        descriptor.encode(&geometry, &header),
        bytes(DESCRIPTOR_MIXED)
    );
    Descriptor::decode(&bytes(DESCRIPTOR_MIXED), 5, &geometry, &header).unwrap();
    assert!(
        Descriptor::decode(&bytes(DESCRIPTOR), 5, &geometry, &header).is_err(),
        "a descriptor without the two arrays"
    );
    let large = RingShape {
        batch_size: 1000,
        ..MIXED
    };
    let geometry = Geometry::new(large).unwrap();
    assert_eq!(
        [
            geometry.labels,
            geometry.indices,
            geometry.mixed_labels,
            geometry.weights
        ],
        [12_032, 20_032, 28_032, 36_032]
    );
    assert_eq!(geometry.slot_bytes, 40_960);
    // Stream and ring must agree.
    let refused = Header::new(&info, &Geometry::new(SHAPE).unwrap(), 0, 0);
    assert!(matches!(refused, Err(Error::BadShape { .. })));
}

#[test]
fn every_flipped_bit_is_refused() {
    let (header, geometry) = header();
    for bit in 0..8 * FIXED_BYTES {
        let mut damaged = bytes::<FIXED_BYTES>(HEADER);
        damaged[bit / 8] ^= 1 << (bit % 8);
        assert!(Header::decode(&damaged, 4096 * 4).is_err(), "bit {bit}");
    }
    for bit in 0..8 * DESCRIPTOR_BYTES {
        let mut damaged = bytes::<DESCRIPTOR_BYTES>(DESCRIPTOR);
        damaged[bit / 8] ^= 1 << (bit % 8);
        assert!(
            Descriptor::decode(&damaged, 5, &geometry, &header).is_err(),
            "bit {bit}"
        );
    }
    assert!(Descriptor::decode(&bytes(DESCRIPTOR), 2, &geometry, &header).is_err());
    assert!(Header::decode(&bytes(HEADER), 4096 * 5).is_err());
}

#[test]
fn a_header_with_a_right_checksum_must_still_make_sense() {
    let absurd = |change: &dyn Fn(&mut [u8; FIXED_BYTES])| {
        let mut changed = bytes::<FIXED_BYTES>(HEADER);
        change(&mut changed);
        let sum = crc32c::crc32c(&changed[..124]);
        put(&mut changed, 124, sum.to_le_bytes());
        Header::decode(&changed, 4096 * 4)
    };
    assert!(absurd(&|_| {}).is_ok());
    let version = absurd(&|bytes| bytes[8] = 3);
    assert!(matches!(
        version,
        Err(Error::VersionMismatch {
            daemon: 3,
            consumer: 2
        })
    ));
    assert!(
        absurd(&|bytes| bytes[10] = 9).is_ok(),
        "a minor version may be newer"
    );
    for at in [24, 32, 88, 96] {
        for value in [0_u32, 1_000_000, u32::MAX] {
            let changed = absurd(&|bytes| put(bytes, at, value.to_le_bytes()));
            assert!(
                matches!(changed, Err(Error::Malformed { .. })),
                "{at}: {value}"
            );
        }
    }
    assert!(absurd(&|bytes| bytes[92] = 9).is_err());
    assert!(absurd(&|bytes| bytes[95] = 2).is_err());
}

#[test]
fn impossible_rings_are_refused() {
    let shape = |slots, batch_size, sample_bytes| {
        Geometry::new(RingShape {
            slots,
            batch_size,
            sample_bytes,
            mixes: false,
        })
    };
    for (slots, batch_size, sample_bytes) in [
        (1, 1, 1),
        (1025, 1, 1),
        (2, 0, 1),
        (2, 1, 0),
        (2, usize::MAX, 2),
        (2, 1 << 24, usize::MAX),
        (2, 2, 1 << 40),
    ] {
        let refused = shape(slots, batch_size, sample_bytes);
        assert!(
            matches!(refused, Err(Error::BadShape { .. })),
            "{slots} {batch_size} {sample_bytes}"
        );
    }
    let geometry = Geometry::new(SHAPE).unwrap();
    for (dtype, layout, shape, batch_size) in [
        ("i8", "nhwc", [2, 2, 3], 4),
        ("u8", "chwn", [2, 2, 3], 4),
        ("f32", "nhwc", [2, 2, 3], 4),
        ("u8", "nhwc", [2, 2, 3], 5),
    ] {
        let info = StreamInfo {
            dtype: dtype.to_owned(),
            layout: layout.to_owned(),
            shape,
            batch_size,
            ..info()
        };
        assert!(
            matches!(
                Header::new(&info, &geometry, 0, 0),
                Err(Error::BadShape { .. })
            ),
            "{info:?}"
        );
    }
}
