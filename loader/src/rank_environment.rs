//! Which part of the batches this process takes: its rank, from arguments or from what its launcher left behind.

mod claim;
#[cfg(test)]
mod tests;

use std::fmt;

use claim::{Claim, environment};

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
