//! Which part of the batches this process takes: its rank, from arguments or from what its launcher left behind.

use std::fmt;

/// The rank of this process, the number of ranks, and who said so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placement {
    /// Rank, `0..world_size`.
    pub rank: u32,
    /// Number of ranks.
    pub world_size: u32,
    /// Where the two come from, in words.
    pub source: String,
}

impl fmt::Display for Placement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Placement {
            rank,
            world_size,
            source,
        } = self;
        write!(f, "rank {rank} of {world_size}, from {source}")
    }
}

/// Why the rank is not known.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RankError {
    /// Two sources disagree.
    #[error(
        "the {what} is {first} by {first_source}, but {second} by {second_source}: correct the one that is wrong, \
         or leave the environment out of it (`environment=False` in Python, `consume --ignore-environment`)"
    )]
    Contradiction {
        /// `rank` or `world size`.
        what: &'static str,
        /// What the source of higher precedence says.
        first: u32,
        /// Its name.
        first_source: String,
        /// What the other one says.
        second: u32,
        /// Its name.
        second_source: String,
    },
    /// A variable holds no number.
    #[error("{variable} in the environment must be a number from 0 up, found {found:?}")]
    NotANumber {
        /// Its name.
        variable: &'static str,
        /// What it holds.
        found: String,
    },
    /// One half is known and the other is not.
    #[error("{known}, but the {missing} is not known: {advice}")]
    Incomplete {
        /// What is known, and from where.
        known: String,
        /// `rank` or `world size`.
        missing: &'static str,
        /// What to do.
        advice: &'static str,
    },
    /// The rank does not exist.
    #[error(
        "rank {rank} ({source_of_rank}) does not exist: the world size is {world_size} ({source_of_size})"
    )]
    OutOfRange {
        /// The rank found.
        rank: u32,
        /// Where.
        source_of_rank: String,
        /// The world size found.
        world_size: u32,
        /// Where.
        source_of_size: String,
    },
}

/// What one source says.
#[derive(Clone, Debug)]
struct Claim {
    source: &'static str,
    rank: Option<u32>,
    world_size: Option<u32>,
    rank_name: &'static str,
    size_name: &'static str,
    /// Processes on this machine, where the launcher says.
    local_size: Option<u32>,
    /// Ranks are dealt out anew at every start, so they need not be those of an outer launcher.
    elastic: bool,
}

impl Claim {
    fn rank_source(&self) -> String {
        named(self.source, self.rank_name)
    }

    fn size_source(&self) -> String {
        named(self.source, self.size_name)
    }

    fn sources(&self) -> String {
        match (self.rank, self.world_size) {
            (Some(_), Some(_)) => named(
                self.source,
                &format!("{} and {}", self.rank_name, self.size_name),
            ),
            (Some(_), None) => self.rank_source(),
            _ => self.size_source(),
        }
    }

    /// Launchers of this claim's processes, when it tells: one a machine.
    fn agents(&self) -> Option<u32> {
        let (world, local) = (self.world_size?, self.local_size?);
        (local > 0 && world.is_multiple_of(local)).then(|| world / local)
    }

    /// Whether `outer` counts the launchers of this claim's processes and not the processes: `srun` or a Kubernetes
    /// job starting one torchrun a machine, say.
    fn was_started_by(&self, outer: &Claim) -> bool {
        let Some(agents) = self.agents() else {
            return false;
        };
        let counts_agents = outer.world_size.is_none_or(|size| size == agents)
            && outer.rank.is_none_or(|rank| rank < agents);
        let same_processes = outer.world_size == self.world_size && outer.rank == self.rank;
        counts_agents && !same_processes && (self.elastic || self.local_size > Some(1))
    }
}

fn named(source: &str, variables: &str) -> String {
    if source.is_empty() {
        variables.to_owned()
    } else {
        format!("{source} ({variables})")
    }
}

impl Placement {
    /// Finds rank and world size: arguments before torchrun, Slurm, Open MPI and Kubernetes, and 0 of 1 if none of them
    /// says anything. `served` is the number of ranks of a stream that is to be joined; `variable` looks an environment
    /// variable up.
    ///
    /// A launcher that only starts another launcher on each machine (`srun torchrun ...`) is recognised by its counting
    /// machines, and not asked. A Slurm job script or interactive shell is no task of a step, and not asked either.
    ///
    /// ```
    /// use ddas_loader::Placement;
    ///
    /// let environment = [("RANK", "3"), ("WORLD_SIZE", "8")];
    /// let variable = |name: &str| environment.iter().find(|entry| entry.0 == name).map(|entry| entry.1.to_owned());
    /// let placement = Placement::find(None, None, None, variable)?;
    /// assert_eq!(placement.to_string(), "rank 3 of 8, from torchrun (RANK and WORLD_SIZE)");
    ///
    /// let wrong = Placement::find(Some(2), None, None, variable).unwrap_err();
    /// assert!(wrong.to_string().contains("the rank is 2 by the arguments (rank), but 3 by torchrun (RANK)"));
    /// # Ok::<(), ddas_loader::RankError>(())
    /// ```
    ///
    /// # Errors
    /// [`RankError`] when two sources disagree (both are named), when a variable is no number, when only one of the two
    /// is known, or when there is no such rank.
    pub fn find(
        rank: Option<u32>,
        world_size: Option<u32>,
        served: Option<u32>,
        variable: impl Fn(&str) -> Option<String>,
    ) -> Result<Placement, RankError> {
        let given = Claim {
            source: "the arguments",
            rank,
            world_size,
            rank_name: "rank",
            size_name: "world size",
            local_size: None,
            elastic: false,
        };
        let joined = Claim {
            source: "the stream",
            rank: None,
            world_size: served,
            ..given.clone()
        };
        let mut claims = vec![given, joined];
        claims.extend(environment(&variable)?);
        claims.retain(|claim| claim.rank.is_some() || claim.world_size.is_some());
        let mut kept: Vec<Claim> = Vec::new();
        for claim in claims {
            if !kept.iter().any(|inner| inner.was_started_by(&claim)) {
                kept.push(claim);
            }
        }
        agree(&kept)?;
        settle(&kept)
    }

    /// [`Placement::find`] in the environment of this process; `environment` false leaves that out.
    ///
    /// # Errors
    /// As [`Placement::find`].
    pub fn of_this_process(
        rank: Option<u32>,
        world_size: Option<u32>,
        served: Option<u32>,
        environment: bool,
    ) -> Result<Placement, RankError> {
        Placement::find(rank, world_size, served, |name| {
            environment.then(|| std::env::var(name).ok())?
        })
    }
}

/// What the launchers say, in order of precedence.
fn environment(variable: &impl Fn(&str) -> Option<String>) -> Result<Vec<Claim>, RankError> {
    let number = |name: &'static str| -> Result<Option<u32>, RankError> {
        variable(name)
            .filter(|text| !text.trim().is_empty())
            .map(|text| {
                text.trim().parse().map_err(|_| RankError::NotANumber {
                    variable: name,
                    found: text,
                })
            })
            .transpose()
    };
    let is_set = |name: &str| variable(name).is_some();
    let claim = |source, rank_name, size_name, local_name| {
        Ok(Claim {
            source,
            rank: number(rank_name)?,
            world_size: number(size_name)?,
            rank_name,
            size_name,
            local_size: number(local_name)?,
            elastic: false,
        })
    };
    let mut torchrun = claim("torchrun", "RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE")?;
    torchrun.elastic = is_set("TORCHELASTIC_RUN_ID");
    let mut claims = vec![torchrun];
    let shell = matches!(
        variable("SLURM_JOB_NAME").as_deref(),
        Some("bash" | "interactive")
    );
    let script = is_set("SLURM_JOB_ID") && !is_set("SLURM_STEP_ID") && !is_set("SLURM_STEPID");
    let mut slurm = None;
    if !shell && !script {
        slurm = Some(Claim {
            source: "Slurm",
            rank: number("SLURM_PROCID")?,
            world_size: number("SLURM_NTASKS")?,
            rank_name: "SLURM_PROCID",
            size_name: "SLURM_NTASKS",
            local_size: None,
            elastic: false,
        });
    }
    let mpi = claim(
        "Open MPI",
        "OMPI_COMM_WORLD_RANK",
        "OMPI_COMM_WORLD_SIZE",
        "OMPI_COMM_WORLD_LOCAL_SIZE",
    )?;
    // mpirun starts its helpers as a Slurm step, whose numbers the processes inherit: the inner launcher comes first.
    if mpi.rank.is_some()
        && slurm
            .as_ref()
            .is_some_and(|slurm| mpi.was_started_by(slurm))
    {
        slurm = None;
    }
    claims.extend(slurm);
    claims.push(mpi);
    claims.push(Claim {
        source: "Kubernetes",
        rank: number("JOB_COMPLETION_INDEX")?,
        world_size: None,
        rank_name: "JOB_COMPLETION_INDEX",
        size_name: "",
        local_size: None,
        elastic: false,
    });
    Ok(claims)
}

/// Refuses two claims that differ.
fn agree(claims: &[Claim]) -> Result<(), RankError> {
    for (at, first) in claims.iter().enumerate() {
        for second in &claims[at + 1..] {
            if let (Some(a), Some(b)) = (first.rank, second.rank)
                && a != b
            {
                return Err(RankError::Contradiction {
                    what: "rank",
                    first: a,
                    first_source: first.rank_source(),
                    second: b,
                    second_source: second.rank_source(),
                });
            }
            if let (Some(a), Some(b)) = (first.world_size, second.world_size)
                && a != b
            {
                return Err(RankError::Contradiction {
                    what: "world size",
                    first: a,
                    first_source: first.size_source(),
                    second: b,
                    second_source: second.size_source(),
                });
            }
        }
    }
    Ok(())
}

/// Puts claims together that agree.
fn settle(claims: &[Claim]) -> Result<Placement, RankError> {
    let rank = claims
        .iter()
        .find_map(|claim| Some((claim.rank?, claim.rank_source())));
    let size = claims
        .iter()
        .find_map(|claim| Some((claim.world_size?, claim.size_source())));
    let (rank, source_of_rank, world_size, source_of_size) = match (rank, size) {
        (None, None) => {
            return Ok(Placement {
                rank: 0,
                world_size: 1,
                source: "nothing: no argument and no launcher's variable says otherwise".to_owned(),
            });
        }
        // One process needs no rank.
        (None, Some((1, source))) => (0, source.clone(), 1, source),
        // Rank 0 is the only one there is without others.
        (Some((0, source)), None) if source.starts_with("the arguments") => {
            (0, source.clone(), 1, source)
        }
        (None, Some((size, source))) => {
            return Err(RankError::Incomplete {
                known: format!("the world size is {size} by {source}"),
                missing: "rank",
                advice: "give the rank, or start with torchrun, srun or mpirun",
            });
        }
        (Some((rank, source)), None) => {
            return Err(RankError::Incomplete {
                known: format!("the rank is {rank} by {source}"),
                missing: "world size",
                advice: "give the world size (Kubernetes does not tell how many completions an indexed job has)",
            });
        }
        (Some((rank, of_rank)), Some((size, of_size))) => (rank, of_rank, size, of_size),
    };
    if rank >= world_size {
        return Err(RankError::OutOfRange {
            rank,
            source_of_rank,
            world_size,
            source_of_size,
        });
    }
    let both = claims
        .iter()
        .find(|claim| claim.rank == Some(rank) && claim.world_size == Some(world_size));
    let source = match both {
        Some(claim) => claim.sources(),
        None if source_of_rank == source_of_size => source_of_rank,
        None => format!("{source_of_rank} and {source_of_size}"),
    };
    Ok(Placement {
        rank,
        world_size,
        source,
    })
}

#[cfg(test)]
mod tests {
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
}
