//! The documentation of all settings, made from the table: `docs/config.md`.

use std::fmt::Write;

use crate::config::key::{Key, Treatment};
use crate::config::table::KEYS;

const HEAD: &str = "\
# Settings

<!-- Made by `baton config reference`; a test fails when it is stale. -->

`baton` reads `<home>/config/evnode.yaml`, ev-node's own file, as it is. A value is looked for in this order, and the first
found counts:

1. a flag: `--node.block_time 500ms`, also `--evnode.node.block_time` and the old `--rollkit.node.block_time`;
2. an environment variable: `BATON_NODE_BLOCK_TIME=500ms`;
3. the file;
4. the default.

Every value is checked before anything is opened, also one that another source overrides. An unknown key, a value that
breaks its rule, two values that do not go together, and a value that is not supported yet end the program with exit code
78 and a last line on stderr that names key, value, source and rule. `baton config check` does that, and looks
at genesis, keys and the cluster's certificates too, without opening store or ports; `baton config
show` prints every value and who said it, without secrets.

Durations are written as in Go (`350ms`, `1.5s`, `1h30m`, `0`), sizes in bytes or with a unit (`64MiB`), lists as YAML lists
or with commas. A flag of kind `bool` without a value means `true`.

## All settings
";

const TREATMENTS: &str = "
## What becomes of ev-node's keys

- *same*: means what it means in ev-node.
- *translated*: has an effect of its own, by the formula given.
- *ignored with a warning*: has no effect. A value other than the default is named in a warning at start.
- *refused as not supported yet*: any value but the ones given ends the program with exit code 78.

| key | treatment | formula, reason or condition |
| --- | --- | --- |
";

const RULES: &str = "
## Rules between settings

- `node.lazy_block_interval` > `node.block_time`, in lazy mode.
- `raft.heartbeat_interval` < `raft.election_timeout_min` < `raft.election_timeout_max`, and `raft.election_timeout_max` >
  3 x `raft.heartbeat_interval`.
- `block.max_bytes` + 64 KiB <= `da.max_blob_bytes`: a block must fit into a blob. Neither bounds what a member reads from the others: blocks of up
  to 48 MiB, whatever they were made with.
- `da.forced_inclusion_namespace` differs from `da.namespace` and `da.data_namespace`.
- `rpc.address`, `kv.listen` and, when used, `instrumentation.prometheus_listen_addr` and `raft.raft_addr` differ.
- `node.catchup_timeout` excludes `raft.enable`, `da.forced_inclusion_namespace`, and a passphrase from stdin.
- `raft.peers` and `raft.join` exclude each other; each needs `raft.raft_addr` and `raft.node_id`. `raft.witness` needs one of them.
- Names and addresses in `raft.peers` are unique. The entry with this node's name has its advertised address, and the other way round.
- What is advertised is no wildcard and has a port.
- `raft.tls.ca`, `raft.tls.cert` and `raft.tls.key` are set together or not at all, and exclude `raft.tls.insecure_loopback`.
- `raft.enable`, `raft.witness` and `node.catchup_timeout` need `node.aggregator`; `node.light` excludes it.
- `baton start` needs `da.address`, `da.namespace` and `signer.passphrase_file`; a witness needs none of them, and a node
  that follows needs `da.address` with `da.namespace`, or `p2p.peers`.

How to choose Raft's times for a network is in [guides/cluster.md](guides/cluster.md#timing).
";

/// The whole page.
#[must_use]
pub fn page() -> String {
    let mut page = HEAD.to_owned();
    let mut section = None;
    for key in KEYS {
        if section != Some(key.section()) {
            section = Some(key.section());
            let title = if key.section().is_empty() { "(top)" } else { key.section() };
            page.push_str(&format!("\n### {title}\n\n| key | kind | default | what it is for | rule |\n"));
            page.push_str("| --- | --- | --- | --- | --- |\n");
        }
        row(&mut page, key);
    }
    page.push_str(TREATMENTS);
    for key in KEYS.iter().filter(|key| key.is_evnode()) {
        let condition = key.when.map(|other| format!(" (while `{other}` is `true`)")).unwrap_or_default();
        let detail = match key.treatment {
            Treatment::Own | Treatment::Same => String::new(),
            Treatment::Translated(why) | Treatment::Ignored(why) => format!("{why}{condition}"),
            Treatment::Unsupported(accepted, why) => {
                let accepted: Vec<_> = accepted.iter().map(|value| code(value)).collect();
                format!("only {}; {why}{condition}", accepted.join(", "))
            }
        };
        let _ = writeln!(page, "| `{}` | {} | {detail} |", key.name, key.treatment.name());
    }
    page.push_str(RULES);
    page
}

fn row(page: &mut String, key: &Key) {
    let (name, kind, default) = (key.name, key.kind.unit(), code(key.default));
    let _ = writeln!(page, "| `{name}` | {kind} | {default} | {} | {} |", key.doc, key.rule.text());
}

fn code(value: &str) -> String {
    if value.is_empty() { "empty".to_owned() } else { format!("`{value}`") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_in_the_repository_is_this_one() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/config.md");
        let stored = std::fs::read_to_string(path).unwrap_or_default();
        assert!(stored == page(), "docs/config.md is stale: run `baton config reference > docs/config.md`");
    }
}
