//! Who a process is: a number that its data folder keeps.

use std::{
    io::{self, Write},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use sextant_replication::{ClusterId, NodeId};

/// Version of the file.
const VERSION: u32 = 1;

/// A process's number, and the cluster that it is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    /// The deployment.
    pub cluster: ClusterId,
    /// The node. A folder that was emptied gives another.
    pub node: NodeId,
}

#[derive(Serialize, Deserialize)]
struct Written {
    version: u32,
    cluster: ClusterId,
    node: NodeId,
}

/// The data folder says who the process is, and cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The file could not be read or written.
    #[error("{file}: {source}")]
    Io {
        /// The file.
        file: PathBuf,
        /// The error.
        source: io::Error,
    },
    /// The file is damaged, or of a newer program.
    #[error("{file}: {reason}")]
    Malformed {
        /// The file.
        file: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The folder is of another cluster.
    #[error("{file} is of cluster {found}, cluster.name {name:?} is cluster {wanted}")]
    OtherCluster {
        /// The file.
        file: PathBuf,
        /// The configured name.
        name: String,
        /// The cluster of the folder.
        found: ClusterId,
        /// The cluster of that name.
        wanted: ClusterId,
    },
}

/// The cluster of a name: XXH3-128 of it.
pub fn cluster_id(name: &str) -> ClusterId {
    ClusterId(xxhash_rust::xxh3::xxh3_128(name.as_bytes()))
}

impl Identity {
    /// Reads `node.json` in a data folder, or makes it, durably, with a number drawn by chance.
    pub fn open(dir: &Path, cluster_name: &str) -> Result<Self, IdentityError> {
        let file = dir.join("node.json");
        let wanted = cluster_id(cluster_name);
        let io = |source| IdentityError::Io { file: file.clone(), source };
        let malformed = |reason: String| IdentityError::Malformed { file: file.clone(), reason };
        match std::fs::read(&file) {
            Ok(text) => {
                let found: Written = serde_json::from_slice(&text).map_err(|e| malformed(e.to_string()))?;
                if found.version > VERSION {
                    return Err(malformed(format!(
                        "version {}, this program reads {VERSION}",
                        found.version
                    )));
                }
                if found.cluster != wanted {
                    let (name, found) = (cluster_name.to_owned(), found.cluster);
                    return Err(IdentityError::OtherCluster { file, name, found, wanted });
                }
                Ok(Self { cluster: found.cluster, node: found.node })
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                // 0 is nobody; above 2^53 numbers are not exact in JSON readers.
                let node = NodeId(rand::random_range(1..1 << 53));
                let written = Written { version: VERSION, cluster: wanted, node };
                let text = serde_json::to_vec(&written).map_err(|e| malformed(e.to_string()))?;
                std::fs::create_dir_all(dir).map_err(io)?;
                let aside = dir.join("node.json.new");
                let mut new = std::fs::File::create(&aside).map_err(io)?;
                new.write_all(&text).and_then(|()| new.sync_all()).map_err(io)?;
                std::fs::rename(&aside, &file).map_err(io)?;
                std::fs::File::open(dir).and_then(|d| d.sync_all()).map_err(io)?;
                Ok(Self { cluster: wanted, node })
            }
            Err(e) => Err(io(e)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_keeps_who_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let first = Identity::open(dir.path(), "a").unwrap();
        assert_eq!(Identity::open(dir.path(), "a").unwrap(), first);
        assert!(matches!(Identity::open(dir.path(), "b"), Err(IdentityError::OtherCluster { .. })));
        std::fs::write(dir.path().join("node.json"), "{").unwrap();
        assert!(matches!(Identity::open(dir.path(), "a"), Err(IdentityError::Malformed { .. })));
        let other = tempfile::tempdir().unwrap();
        assert_ne!(Identity::open(other.path(), "a").unwrap().node, first.node);
    }
}
