//! Where a node keeps its files: ev-node's layout, and what is Baton's own beside it.

use std::path::{Path, PathBuf};

/// A node's home directory.
///
/// ```text
/// config/evnode.yaml     what the operator set
/// config/genesis.json    what the chain begins with
/// config/node_key.json   the key of the peer-to-peer host
/// config/signer.json     the sequencer's key, encrypted
/// config/guard           the double-sign guard, always beside the key
/// config/import.json     where the chain came from, when it was imported
/// config/lives.json      which lives of other members' disks were seen
/// data/baton/            the store
/// data/member            this home was made to be a member of a cluster with others
/// audit.jsonl            what was signed and refused
/// audit-events.jsonl     what was committed, who led, what operators did
/// admin.sock             where operators' commands go while the node runs
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Home {
    root: PathBuf,
    signer: PathBuf,
    data: PathBuf,
    audit: PathBuf,
    events: PathBuf,
}

impl Home {
    /// The home in this directory, laid out as by default.
    #[must_use]
    pub fn new(root: impl Into<PathBuf>) -> Self {
        let root = root.into();
        Self {
            signer: root.join("config"),
            data: root.join("data"),
            audit: root.join("audit.jsonl"),
            events: root.join("audit-events.jsonl"),
            root,
        }
    }

    /// With the key in another directory (`signer.signer_path`), relative to the home.
    #[must_use]
    pub fn with_signer_path(mut self, directory: impl AsRef<Path>) -> Self {
        self.signer = self.root.join(directory);
        self
    }

    /// With the data in another directory (`db_path`), relative to the home.
    #[must_use]
    pub fn with_db_path(mut self, directory: impl AsRef<Path>) -> Self {
        self.data = self.root.join(directory);
        self
    }

    /// With the record of signatures elsewhere (`audit.path`), relative to the home.
    #[must_use]
    pub fn with_audit_path(mut self, file: impl AsRef<Path>) -> Self {
        self.audit = self.root.join(file);
        self
    }

    /// With the record of events elsewhere (`audit.events_path`), relative to the home.
    #[must_use]
    pub fn with_events_path(mut self, file: impl AsRef<Path>) -> Self {
        self.events = self.root.join(file);
        self
    }

    /// The directory itself.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// `config/evnode.yaml`.
    #[must_use]
    pub fn config(&self) -> PathBuf {
        self.root.join("config/evnode.yaml")
    }

    /// `config/genesis.json`.
    #[must_use]
    pub fn genesis(&self) -> PathBuf {
        self.root.join("config/genesis.json")
    }

    /// `config/node_key.json`.
    #[must_use]
    pub fn node_key(&self) -> PathBuf {
        self.root.join("config/node_key.json")
    }

    /// `signer.json` in the signer's directory.
    #[must_use]
    pub fn signer(&self) -> PathBuf {
        self.signer.join("signer.json")
    }

    /// The guard, beside the key: who moves the one moves the other.
    #[must_use]
    pub fn guard(&self) -> PathBuf {
        self.signer.join("guard")
    }

    /// `config/lives.json`: which lives of other members were seen last.
    #[must_use]
    pub fn lives(&self) -> PathBuf {
        self.root.join("config/lives.json")
    }

    /// `config/import.json`: where the chain was imported from, and where it goes on.
    #[must_use]
    pub fn import_record(&self) -> PathBuf {
        self.root.join("config/import.json")
    }

    /// `config/import-node_key.json`: the old host's key, until this node takes its place.
    #[must_use]
    pub fn old_node_key(&self) -> PathBuf {
        self.root.join("config/import-node_key.json")
    }

    /// The data directory, which ev-node's own database may share.
    #[must_use]
    pub fn data(&self) -> &Path {
        &self.data
    }

    /// The store, in the data directory.
    #[must_use]
    pub fn store(&self) -> PathBuf {
        self.data.join("baton")
    }

    /// The record of everything that was signed and refused.
    #[must_use]
    pub fn audit(&self) -> PathBuf {
        self.audit.clone()
    }

    /// The record of what was committed, who led, and what operators did.
    #[must_use]
    pub fn events(&self) -> PathBuf {
        self.events.clone()
    }

    /// The socket for operators' commands. In the home itself: there only its owner comes in.
    #[must_use]
    pub fn admin_socket(&self) -> PathBuf {
        self.root.join("admin.sock")
    }

    /// Says that this home was made for a cluster with others, and must not form one alone.
    #[must_use]
    pub fn member_mark(&self) -> PathBuf {
        self.data.join("member")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_layout_is_ev_nodes() {
        let home = Home::new("/h");
        let paths = [
            home.config(),
            home.genesis(),
            home.node_key(),
            home.signer(),
            home.guard(),
            home.lives(),
            home.store(),
            home.audit(),
        ];
        let expected = [
            "/h/config/evnode.yaml",
            "/h/config/genesis.json",
            "/h/config/node_key.json",
            "/h/config/signer.json",
            "/h/config/guard",
            "/h/config/lives.json",
            "/h/data/baton",
            "/h/audit.jsonl",
        ];
        assert_eq!(paths.map(|path| path.display().to_string()), expected);
    }

    #[test]
    fn the_guard_follows_the_key() {
        let home = Home::new("/h").with_signer_path("keys").with_db_path("/var/chain");
        assert_eq!(home.signer(), Path::new("/h/keys/signer.json"));
        assert_eq!(home.guard(), Path::new("/h/keys/guard"));
        assert_eq!(home.store(), Path::new("/var/chain/baton"));
    }
}
