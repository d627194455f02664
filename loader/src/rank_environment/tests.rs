use super::*;

fn find(
    rank: Option<u32>,
    world_size: Option<u32>,
    environment: &[(&str, &str)],
) -> Result<Placement, String> {
    Placement::find(rank, world_size, None, |name| {
        environment
            .iter()
            .find(|entry| entry.0 == name)
            .map(|entry| entry.1.to_owned())
    })
    .map_err(|error| error.to_string())
}

fn place(rank: Option<u32>, world_size: Option<u32>, environment: &[(&str, &str)]) -> String {
    find(rank, world_size, environment).map_or_else(|error| error, |place| place.to_string())
}

const TORCHRUN: [(&str, &str); 6] = [
    ("RANK", "5"),
    ("WORLD_SIZE", "8"),
    ("LOCAL_RANK", "1"),
    ("LOCAL_WORLD_SIZE", "4"),
    ("GROUP_RANK", "1"),
    ("TORCHELASTIC_RUN_ID", "none"),
];
const SRUN: [(&str, &str); 4] = [
    ("SLURM_JOB_ID", "77"),
    ("SLURM_STEP_ID", "0"),
    ("SLURM_PROCID", "2"),
    ("SLURM_NTASKS", "3"),
];
const MPIRUN: [(&str, &str); 3] = [
    ("OMPI_COMM_WORLD_RANK", "1"),
    ("OMPI_COMM_WORLD_SIZE", "2"),
    ("OMPI_COMM_WORLD_LOCAL_SIZE", "2"),
];

#[test]
fn each_source_is_found_and_named() {
    assert_eq!(
        place(None, None, &TORCHRUN),
        "rank 5 of 8, from torchrun (RANK and WORLD_SIZE)"
    );
    assert_eq!(
        place(None, None, &SRUN),
        "rank 2 of 3, from Slurm (SLURM_PROCID and SLURM_NTASKS)"
    );
    assert_eq!(place(None, None, &SRUN[2..]), place(None, None, &SRUN));
    assert_eq!(
        place(None, None, &MPIRUN),
        "rank 1 of 2, from Open MPI (OMPI_COMM_WORLD_RANK and OMPI_COMM_WORLD_SIZE)"
    );
    assert_eq!(
        place(None, Some(6), &[("JOB_COMPLETION_INDEX", "4")]),
        "rank 4 of 6, from Kubernetes (JOB_COMPLETION_INDEX) and the arguments (world size)"
    );
    assert_eq!(
        place(Some(1), Some(2), &[]),
        "rank 1 of 2, from the arguments (rank and world size)"
    );
    assert!(place(None, None, &[]).starts_with("rank 0 of 1, from nothing"));
}

#[test]
fn arguments_may_repeat_or_complete_what_a_launcher_says() {
    assert!(place(Some(5), Some(8), &TORCHRUN).starts_with("rank 5 of 8, from the arguments"));
    assert!(place(Some(5), None, &TORCHRUN).starts_with("rank 5 of 8, from torchrun"));
    assert!(place(None, Some(8), &TORCHRUN).starts_with("rank 5 of 8, from torchrun"));
    assert!(place(Some(0), None, &[]).starts_with("rank 0 of 1"));
    assert!(place(None, Some(1), &[]).starts_with("rank 0 of 1"));
}

#[test]
fn contradictions_name_both_sides() {
    for (rank, size, environment, expected) in [
        (
            Some(4),
            None,
            &TORCHRUN[..],
            "the rank is 4 by the arguments (rank), but 5 by torchrun (RANK)",
        ),
        (
            None,
            Some(1),
            &TORCHRUN[..],
            "the world size is 1 by the arguments (world size), but 8 by torchrun (WORLD_SIZE)",
        ),
        (
            Some(0),
            Some(3),
            &SRUN[..],
            "the rank is 0 by the arguments (rank), but 2 by Slurm (SLURM_PROCID)",
        ),
        (
            Some(1),
            Some(4),
            &MPIRUN[..],
            "but 2 by Open MPI (OMPI_COMM_WORLD_SIZE)",
        ),
        (
            Some(1),
            Some(4),
            &[("JOB_COMPLETION_INDEX", "3")][..],
            "but 3 by Kubernetes (JOB_COMPLETION_INDEX)",
        ),
    ] {
        let text = find(rank, size, environment).unwrap_err();
        assert!(text.contains(expected), "{text}");
    }
    let both = [
        ("RANK", "0"),
        ("WORLD_SIZE", "2"),
        ("SLURM_PROCID", "1"),
        ("SLURM_NTASKS", "2"),
    ];
    let text = find(None, None, &both).unwrap_err();
    assert!(
        text.contains("0 by torchrun (RANK), but 1 by Slurm (SLURM_PROCID)"),
        "{text}"
    );
}

#[test]
fn a_launcher_of_launchers_is_not_asked() {
    let with = |outer: &[(&'static str, &'static str)]| [&TORCHRUN[..], outer].concat();
    // Two machines of four processes each: Slurm and Kubernetes count the machines.
    for outer in [
        &[("SLURM_PROCID", "0"), ("SLURM_NTASKS", "2")][..],
        &[("JOB_COMPLETION_INDEX", "1")][..],
    ] {
        assert!(place(None, None, &with(outer)).starts_with("rank 5 of 8, from torchrun"));
    }
    // Three machines cannot be where torchrun sees two.
    let text = find(
        None,
        None,
        &with(&[("SLURM_PROCID", "0"), ("SLURM_NTASKS", "3")]),
    )
    .unwrap_err();
    assert!(
        text.contains("rank is 5") && text.contains("Slurm"),
        "{text}"
    );
    // One process a machine: torchrun deals the ranks out itself.
    let single = [
        ("RANK", "1"),
        ("WORLD_SIZE", "2"),
        ("LOCAL_WORLD_SIZE", "1"),
        ("TORCHELASTIC_RUN_ID", "x"),
        ("SLURM_PROCID", "0"),
        ("SLURM_NTASKS", "2"),
    ];
    assert!(place(None, None, &single).starts_with("rank 1 of 2, from torchrun"));
    // mpirun's helpers are a Slurm step of one task a machine.
    let mpi = [
        &MPIRUN[..],
        &[
            ("SLURM_JOB_ID", "7"),
            ("SLURM_STEP_ID", "1"),
            ("SLURM_PROCID", "0"),
            ("SLURM_NTASKS", "1"),
        ][..],
    ]
    .concat();
    assert!(place(None, None, &mpi).starts_with("rank 1 of 2, from Open MPI"));
}

#[test]
fn a_stream_that_is_joined_has_its_own_number_of_ranks() {
    let join = |rank, served, environment: &[(&str, &str)]| {
        let variable = |name: &str| {
            let entry = environment.iter().find(|entry| entry.0 == name)?;
            Some(entry.1.to_owned())
        };
        Placement::find(rank, None, Some(served), variable)
            .map_or_else(|error| error.to_string(), |place| place.to_string())
    };
    assert_eq!(
        join(Some(1), 2, &[]),
        "rank 1 of 2, from the arguments (rank) and the stream (world size)"
    );
    assert!(join(None, 8, &TORCHRUN).starts_with("rank 5 of 8, from torchrun"));
    assert!(
        join(None, 4, &TORCHRUN)
            .contains("is 4 by the stream (world size), but 8 by torchrun (WORLD_SIZE)")
    );
    assert!(join(Some(2), 2, &[]).contains("rank 2 (the arguments (rank)) does not exist"));
}

#[test]
fn a_job_script_or_shell_is_no_task() {
    let script = [
        ("SLURM_JOB_ID", "7"),
        ("SLURM_PROCID", "0"),
        ("SLURM_NTASKS", "4"),
    ];
    assert!(place(None, None, &script).starts_with("rank 0 of 1, from nothing"));
    let shell = [&SRUN[..], &[("SLURM_JOB_NAME", "bash")][..]].concat();
    assert!(place(None, None, &shell).starts_with("rank 0 of 1, from nothing"));
}

#[test]
fn halves_and_nonsense_are_refused() {
    for (rank, size, environment, expected) in [
        (
            None,
            None,
            &[("RANK", "first")][..],
            "RANK in the environment",
        ),
        (None, None, &[("RANK", "-1")][..], "\"-1\""),
        (
            None,
            None,
            &[("WORLD_SIZE", "2")][..],
            "the rank is not known",
        ),
        (
            None,
            None,
            &[("JOB_COMPLETION_INDEX", "3")][..],
            "the world size is not known",
        ),
        (Some(3), None, &[][..], "the world size is not known"),
        (
            Some(2),
            Some(2),
            &[][..],
            "rank 2 (the arguments (rank)) does not exist",
        ),
    ] {
        let text = find(rank, size, environment).unwrap_err();
        assert!(text.contains(expected), "{text}");
    }
}
