//! What a process does.

/// A role, or all of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Every role in one process, on a log of its own.
    All,
    /// Takes writes, applies limits, routes to shards.
    Distributor,
    /// Holds recent data, replicates it, flushes blocks.
    Ingester,
    /// Merges blocks, applies retention.
    Compactor,
    /// Answers queries.
    Querier,
}

impl Role {
    /// The role of a name on the command line.
    pub fn parse(name: &str) -> Option<Self> {
        [Self::All, Self::Distributor, Self::Ingester, Self::Compactor, Self::Querier]
            .into_iter()
            .find(|r| r.name() == name)
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::All => "all",
            Self::Distributor => "distributor",
            Self::Ingester => "ingester",
            Self::Compactor => "compactor",
            Self::Querier => "querier",
        }
    }

    /// Whether the process takes writes.
    pub fn distributes(self) -> bool {
        matches!(self, Self::All | Self::Distributor)
    }

    /// Whether it answers queries.
    pub fn queries(self) -> bool {
        matches!(self, Self::All | Self::Querier)
    }

    /// Whether it merges blocks by itself.
    pub fn compacts(self) -> bool {
        matches!(self, Self::All | Self::Compactor)
    }
}
