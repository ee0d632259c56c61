//! Which fail points the code has: read from the code, so that none is forgotten.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// What stands before the name of a fail point.
const MARKS: [&str; 2] = ["fail_point!(\"", "failpoints::pass(\""];

/// The names of all fail points in the code of storage, actors and node.
///
/// # Panics
///
/// When the sources are not there.
#[must_use]
pub fn fail_points() -> BTreeSet<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the tests are inside the workspace");
    let mut found = BTreeSet::new();
    for part in ["storage", "actors", "node"] {
        read(&root.join(part).join("src"), &mut found);
    }
    found
}

fn read(directory: &Path, found: &mut BTreeSet<String>) {
    for entry in fs::read_dir(directory).expect("the sources are where they were built") {
        let path = entry.expect("the sources can be listed").path();
        if path.is_dir() {
            read(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).expect("the sources can be read");
            let behind = MARKS.iter().flat_map(|mark| text.split(mark).skip(1));
            found.extend(behind.filter_map(|rest| Some(rest.split_once('"')?.0.to_owned())));
        }
    }
}
