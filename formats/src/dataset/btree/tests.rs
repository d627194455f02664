//! Trees written by LMDB, against what LMDB itself returns; and damaged ones.

use heed::types::Bytes;
use heed::{CommitOrAbort, Database, EnvFlags, EnvOpenOptions, PutFlags};
use proptest::prelude::*;

use super::*;

/// Writes values of the given lengths through LMDB, and gives the file's bytes and LMDB's own answers.
#[allow(unsafe_code)]
fn written_by_lmdb(lengths: &[usize], per_transaction: usize) -> (Vec<u8>, Vec<Vec<u8>>) {
    let folder = tempfile::tempdir().unwrap();
    let mut options = EnvOpenOptions::new();
    options.map_size(64 << 20);
    // SAFETY: the folder is this test's own; nothing else opens or changes the file.
    let env = unsafe {
        options
            .flags(EnvFlags::NO_SYNC | EnvFlags::NO_LOCK)
            .open(folder.path())
    }
    .unwrap();
    let database: Database<Bytes, Bytes> = env
        .create_databases_and_commit(env.write_txn().unwrap(), |opener, txn| {
            opener
                .create_database(txn, None)
                .map(CommitOrAbort::<_, ()>::Commit)
        })
        .unwrap()
        .unwrap_commit();
    let mut txn = env.write_txn().unwrap();
    for (index, &length) in lengths.iter().enumerate() {
        if index % per_transaction == 0 {
            txn.commit().unwrap();
            txn = env.write_txn().unwrap();
        }
        let value: Vec<u8> = (0..length).map(|at| (at + index * 7) as u8).collect();
        database
            .put_with_flags(
                &mut txn,
                PutFlags::APPEND,
                &(index as u64).to_be_bytes(),
                &value,
            )
            .unwrap();
    }
    txn.commit().unwrap();
    let txn = env.read_txn().unwrap();
    let values = (0..lengths.len() as u64)
        .map(|index| {
            database
                .get(&txn, &index.to_be_bytes())
                .unwrap()
                .unwrap()
                .to_vec()
        })
        .collect();
    drop(txn);
    env.force_sync().unwrap();
    env.prepare_for_closing().wait();
    (
        std::fs::read(folder.path().join("data.mdb")).unwrap(),
        values,
    )
}

fn same_as_lmdb(lengths: &[usize], per_transaction: usize) -> u16 {
    let (file, values) = written_by_lmdb(lengths, per_transaction);
    let meta = Meta::read(&file).unwrap();
    assert_eq!(meta.entries, lengths.len() as u64);
    for (index, value) in values.iter().enumerate() {
        let entry = find(&file, &meta, index as u64).unwrap().unwrap();
        let place = entry.place(&file, &meta).unwrap();
        let (start, len) = entry.extent(&meta);
        assert!(start <= place.start && place.start + place.len == start + len);
        assert_eq!(
            &file[place.start..place.start + place.len],
            value,
            "value {index}"
        );
    }
    let mut scanned = Vec::new();
    scan(&file, &meta, &mut |index, place| {
        assert_eq!(index, scanned.len() as u64);
        scanned.push(file[place.start..place.start + place.len].to_vec());
        Ok(())
    })
    .unwrap();
    assert_eq!(scanned, values);
    for absent in [lengths.len() as u64, lengths.len() as u64 + 1, u64::MAX] {
        assert_eq!(find(&file, &meta, absent), Ok(None));
    }
    meta.depth
}

#[test]
fn trees_of_several_levels_read_as_lmdb_reads_them() {
    assert_eq!(same_as_lmdb(&[], 1), 0);
    assert_eq!(same_as_lmdb(&[100], 1), 1);
    assert_eq!(same_as_lmdb(&[900; 600], 50), 2);
    assert_eq!(same_as_lmdb(&[1200; 3000], 1000), 3);
    // Around the largest value that stays in its leaf page, and around whole pages.
    let edges: Vec<usize> = (1990..2050)
        .chain(4070..4090)
        .chain([0, 1, 8176, 8177, 100_000])
        .collect();
    same_as_lmdb(&edges, 7);
}

#[test]
fn only_a_whole_lmdb_file_is_accepted() {
    let (file, _) = written_by_lmdb(&[500; 40], 10);
    assert!(Meta::read(b"").unwrap_err().contains("cut short: 0 bytes"));
    assert!(Meta::read(&file[..4096]).unwrap_err().contains("cut short"));
    assert!(
        Meta::read(&[7; 9000])
            .unwrap_err()
            .contains("not an LMDB file")
    );
    let used = (Meta::read(&file).unwrap().last_page as usize + 1) * 4096;
    assert!(Meta::read(&file[..used]).is_ok());
    assert!(
        Meta::read(&file[..used - 1])
            .unwrap_err()
            .contains("cut short: the file has")
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(20))]
    #[test]
    fn any_lengths_read_as_lmdb_reads_them(
        lengths in proptest::collection::vec(prop_oneof![0..100usize, 0..3000usize, 0..20_000usize], 0..80),
        per_transaction in 1..40usize,
    ) {
        same_as_lmdb(&lengths, per_transaction);
    }
}

proptest! {
    /// Damaged trees: every look-up ends, without a panic, inside the file.
    #[test]
    fn damage_is_an_error_or_another_place_never_more(
        damage in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 1..40),
    ) {
        static FILE: std::sync::LazyLock<Vec<u8>> =
            std::sync::LazyLock::new(|| written_by_lmdb(&[40, 3000, 200].repeat(150), 60).0);
        let mut file = FILE.clone();
        for (at, byte) in damage {
            // Page headers, slots and node headers are where it hurts.
            let at = at.index(file.len() / 8);
            let at = at / 512 * 4096 + at % 512;
            file[at] = byte;
        }
        let Ok(meta) = Meta::read(&file) else { return Ok(()) };
        let mut count = 0;
        let scanned = scan(&file, &meta, &mut |_, place| {
            count += 1;
            assert!(place.start + place.len <= file.len());
            Ok(())
        });
        prop_assert!(scanned.is_err() || count == meta.entries);
        for index in 0..450u64 {
            if let Ok(Some(place)) = look_up(&file, &meta, index) {
                prop_assert!(place.start + place.len <= file.len());
            }
        }
    }
}
