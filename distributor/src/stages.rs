//! The stages of the remote-write path one by one, for measuring them. Not for use otherwise.

use sextant_model::TenantId;

use crate::{Distributor, RequestError, remote_write::Version, snappy::decompress, workspace::Workspace};

/// One request's buffers, driven by hand.
#[derive(Debug, Default)]
pub struct Stages {
    workspace: Workspace,
    is_v2: bool,
}

impl Stages {
    /// Stages for one version of the protocol.
    pub fn new(is_v2: bool) -> Self {
        Self { workspace: Workspace::default(), is_v2 }
    }

    /// Decompresses a body into the workspace.
    pub fn decompress(&mut self, body: &[u8]) -> Result<(), RequestError> {
        self.workspace.size = decompress(body, 0, &mut self.workspace.raw)?;
        Ok(())
    }

    /// Walks what was decompressed; returns the samples found and how many series would be sent with labels.
    pub fn walk(&mut self, d: &Distributor, tenant: &TenantId) -> Result<(usize, usize), RequestError> {
        let (state, limits) = (d.tenant(tenant), d.limits_of(tenant));
        self.workspace.begin(d.shards())?;
        let version = if self.is_v2 { Version::V2 } else { Version::V1 };
        d.walk(tenant, version, &state, &limits, &mut self.workspace)?;
        Ok((self.workspace.rows.samples.len(), self.workspace.rows.needs_labels.len()))
    }

    /// Builds the batches, without sending them; returns their bytes.
    pub fn build(&mut self, d: &Distributor, tenant: &TenantId) -> usize {
        d.build_only(tenant, &mut self.workspace)
    }
}
