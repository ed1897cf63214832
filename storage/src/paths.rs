//! Names of objects in the bucket.
//!
//! ```text
//! tenants/<tenant>/<signal>/manifest/<20-digit version>.json
//! tenants/<tenant>/<signal>/blocks/<ulid>/<object>
//! ```

use object_store::path::{Path, PathPart};
use sextant_model::TenantId;

use crate::BlockId;

/// The folder of all tenants.
pub fn tenants() -> Path {
    Path::from_iter(["tenants"])
}

/// The folder of a tenant's manifests.
pub fn manifests(tenant: &TenantId, signal: &str) -> Path {
    Path::from_iter(["tenants", tenant.as_str(), signal, "manifest"])
}

/// One version of a tenant's manifest.
pub fn manifest(tenant: &TenantId, signal: &str, version: u64) -> Path {
    manifests(tenant, signal).join(format!("{version:020}.json"))
}

/// The folder of a tenant's blocks.
pub fn blocks(tenant: &TenantId, signal: &str) -> Path {
    Path::from_iter(["tenants", tenant.as_str(), signal, "blocks"])
}

/// The folder of one block.
pub fn block(tenant: &TenantId, signal: &str, id: BlockId) -> Path {
    blocks(tenant, signal).join(id.to_string())
}

/// One object of a block.
pub fn object(tenant: &TenantId, signal: &str, id: BlockId, name: &str) -> Path {
    block(tenant, signal, id).join(name)
}

/// The tenant of a folder below [`tenants`]. The only character of a tenant's alphabet that object paths encode is `*`.
pub fn tenant_of(path: &Path) -> Option<TenantId> {
    let part: PathPart<'_> = path.parts().nth(1)?;
    TenantId::new(&part.as_ref().replace("%2A", "*")).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tenants_come_back_from_their_paths() {
        for id in ["a", "A.b_c!*'()-9", "a..b"] {
            let tenant = TenantId::new(id).unwrap();
            assert_eq!(tenant_of(&manifests(&tenant, "metrics")), Some(tenant), "{id}");
        }
    }
}
