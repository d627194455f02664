//! What an argument, a stream or a launcher says about rank and world size.

use super::RankError;

/// What one source says.
#[derive(Clone, Debug)]
pub(super) struct Claim {
    pub(super) source: &'static str,
    pub(super) rank: Option<u32>,
    pub(super) world_size: Option<u32>,
    pub(super) rank_name: &'static str,
    pub(super) size_name: &'static str,
    /// Processes on this machine, where the launcher says.
    pub(super) local_size: Option<u32>,
    /// Ranks are dealt out anew at every start, so they need not be those of an outer launcher.
    pub(super) elastic: bool,
}

impl Claim {
    pub(super) fn rank_source(&self) -> String {
        named(self.source, self.rank_name)
    }

    pub(super) fn size_source(&self) -> String {
        named(self.source, self.size_name)
    }

    pub(super) fn sources(&self) -> String {
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
    pub(super) fn was_started_by(&self, outer: &Claim) -> bool {
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

/// What the launchers say, in order of precedence.
pub(super) fn environment(
    variable: &impl Fn(&str) -> Option<String>,
) -> Result<Vec<Claim>, RankError> {
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
