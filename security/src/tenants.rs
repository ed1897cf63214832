//! The tenants that a request names. Ids are checked by `TenantId`, so that one that is a path goes no further.

use http::HeaderMap;
use sextant_model::TenantId;

use crate::{error::AuthError, identity::Identity};

/// The header, and the gRPC metadata, that names tenants.
pub const TENANT_HEADER: &str = "x-scope-orgid";

/// The tenants that the header names, joined with `|`: sorted, each once. `None` where it is missing or empty.
pub fn named_tenants(headers: &HeaderMap) -> Result<Option<Vec<TenantId>>, AuthError> {
    let mut values = headers.get_all(TENANT_HEADER).iter();
    let Some(value) = values.next() else { return Ok(None) };
    // Were it there twice, one reader might take the first and another the last.
    if values.next().is_some() {
        return Err(AuthError::MalformedTenants);
    }
    let text = value.to_str().map_err(|_| AuthError::MalformedTenants)?;
    if text.is_empty() {
        return Ok(None);
    }
    let mut tenants = text.split('|').map(TenantId::new).collect::<Result<Vec<_>, _>>()?;
    tenants.sort();
    tenants.dedup();
    Ok(Some(tenants))
}

/// The tenants of a request: those that it names, or the one that its credential is for. While multi-tenancy is off, all belongs
/// to one tenant and the header says nothing.
pub(crate) fn tenants_of(
    headers: &HeaderMap,
    identity: &Identity,
    multi_tenancy: bool,
) -> Result<Vec<TenantId>, AuthError> {
    if !multi_tenancy {
        return Ok(vec![TenantId::anonymous()]);
    }
    if let Some(named) = named_tenants(headers)? {
        return Ok(named);
    }
    identity.default_tenant().map(|t| vec![t.clone()]).ok_or(AuthError::NoTenant)
}
