//! What the dev DA layer can be asked (wire sections 5.3 and 5.6).

use std::io;

use baton_actors::da::json::{BlobJson, CommitmentJson, NamespaceJson, SubmitOptions};
use baton_messages::da::{Namespace, blob_commitment};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tracing::warn;

use super::frame::StoredBlob;
use super::rpc::{self, Request, RpcError};
use super::store::{NewBlock, Store};

const NOT_FOUND: &str = "blob: not found";
const FROM_THE_FUTURE: &str = "given height is from the future";
const OVER_SIZE_LIMIT: &str = "blob: over size limit";

/// Whether a method puts blobs on DA.
pub fn submits(method: &str) -> bool {
    method == "blob.Submit"
}

/// Carries out a request and returns the result as JSON. It reads and writes files.
pub fn call(
    store: &Store,
    max_blob_size: usize,
    now: u64,
    request: &Request<'_>,
) -> Result<String, RpcError> {
    match request.method.as_str() {
        "blob.Submit" => submit(store, max_blob_size, now, request),
        "blob.GetAll" => get_all(store, request),
        "blob.Get" => {
            let (height, namespace, commitment) = request.params(3)?;
            find(store, height, namespace, commitment)?
                .map(|blob| rpc::json(&blob_json(blob)))
                .ok_or_else(|| RpcError::application(NOT_FOUND))
        }
        "blob.GetProof" => {
            request.params::<(u64, NamespaceJson, CommitmentJson)>(3)?;
            Ok("[]".to_owned())
        }
        "blob.GetCommitmentProof" => {
            request.params::<(u64, NamespaceJson, CommitmentJson)>(3)?;
            Ok("{}".to_owned())
        }
        "blob.Included" => {
            let (height, namespace, _, commitment): (_, _, Value, _) = request.params(4)?;
            Ok(rpc::json(&find(store, height, namespace, commitment)?.is_some()))
        }
        "header.GetByHeight" => {
            let (height,) = request.params(1)?;
            header(store, now, height)
        }
        "header.LocalHead" | "header.NetworkHead" => {
            request.no_params()?;
            header(store, now, store.height())
        }
        method => Err(RpcError::method_not_found(method)),
    }
}

/// What a subscription says about a block.
pub fn event(store: &Store, block: &NewBlock, namespace: [u8; 29]) -> String {
    let blobs = if block.namespaces.contains(&namespace) {
        store
            .blobs(block.height)
            .inspect_err(|error| warn!(%error, "cannot read a block"))
            .unwrap_or_default()
    } else {
        Vec::new()
    };
    let blobs: Vec<BlobJson> =
        blobs.into_iter().filter(|blob| blob.namespace == namespace).map(blob_json).collect();
    let blobs = (!blobs.is_empty()).then_some(blobs);
    #[derive(Serialize)]
    struct Event {
        blobs: Option<Vec<BlobJson>>,
        height: u64,
    }
    rpc::json(&Event { blobs, height: block.height })
}

fn submit(store: &Store, max_blob_size: usize, now: u64, request: &Request<'_>) -> Result<String, RpcError> {
    /// The options are read like the DA node would, and then ignored.
    #[derive(Deserialize)]
    struct Params(Option<Vec<BlobJson>>, #[allow(dead_code, reason = "checked only")] Option<SubmitOptions>);
    let Params(blobs, _) = request.params(2)?;
    let blobs: Vec<StoredBlob> = blobs
        .unwrap_or_default()
        .into_iter()
        .map(|blob| admit(blob, max_blob_size))
        .collect::<Result<_, _>>()?;
    store.append(now, &blobs).map(|height| height.to_string()).map_err(|error| failed(&error))
}

/// Checks a blob as strictly as a DA node does, so that mistakes show up early.
fn admit(blob: BlobJson, max_blob_size: usize) -> Result<StoredBlob, RpcError> {
    let data = blob.data.filter(|data| !data.is_empty());
    let data = data.ok_or_else(|| RpcError::application("blob: data must not be empty"))?;
    if data.len() > max_blob_size {
        return Err(RpcError::application(OVER_SIZE_LIMIT));
    }
    let namespace = blob.namespace.0;
    if namespace[0] != 0 || namespace[1..19] != [0; 18] || namespace[19..28] == [0; 9] {
        return Err(RpcError::application("blob: namespace is reserved or not of version 0"));
    }
    let signer = match (blob.share_version, blob.signer.filter(|signer| !signer.is_empty())) {
        (0, None) => None,
        (1, Some(signer)) => Some(
            signer.try_into().map_err(|_| RpcError::application("blob: the signer must have 20 bytes"))?,
        ),
        _ => return Err(RpcError::application("blob: share version and signer do not fit")),
    };
    // The commitment to a version-1 blob covers the signer too; it is taken as given.
    let given = blob.commitment.map(|commitment| commitment.0);
    let computed = signer.is_none().then(|| blob_commitment(&Namespace(namespace), &data).0);
    let commitment = match (given, computed) {
        (Some(given), Some(computed)) if given != computed => {
            return Err(RpcError::application("blob: the commitment does not fit the data"));
        }
        (given, computed) => given
            .or(computed)
            .ok_or_else(|| RpcError::application("blob: a blob with a signer needs a commitment"))?,
    };
    Ok(StoredBlob { namespace, data, share_version: blob.share_version, commitment, signer })
}

fn get_all(store: &Store, request: &Request<'_>) -> Result<String, RpcError> {
    let (height, namespaces): (u64, Option<Vec<NamespaceJson>>) = request.params(2)?;
    let namespaces = namespaces.unwrap_or_default();
    let wanted = |blob: &StoredBlob| {
        namespaces.is_empty() || namespaces.iter().any(|namespace| namespace.0 == blob.namespace)
    };
    let blobs: Vec<BlobJson> = blobs_at(store, height)?.into_iter().filter(wanted).map(blob_json).collect();
    if blobs.is_empty() { Err(RpcError::application(NOT_FOUND)) } else { Ok(rpc::json(&blobs)) }
}

fn find(
    store: &Store,
    height: u64,
    namespace: NamespaceJson,
    commitment: CommitmentJson,
) -> Result<Option<StoredBlob>, RpcError> {
    let is_it = |blob: &StoredBlob| blob.namespace == namespace.0 && blob.commitment == commitment.0;
    Ok(blobs_at(store, height)?.into_iter().find(is_it))
}

fn blobs_at(store: &Store, height: u64) -> Result<Vec<StoredBlob>, RpcError> {
    if height > store.height() {
        return Err(RpcError::application(FROM_THE_FUTURE));
    }
    store.blobs(height).map_err(|error| failed(&error))
}

fn failed(error: &io::Error) -> RpcError {
    warn!(%error, "the block file does not do what it should");
    RpcError::application(format!("the dev DA layer's file failed: {error}"))
}

fn blob_json(blob: StoredBlob) -> BlobJson {
    BlobJson {
        namespace: NamespaceJson(blob.namespace),
        data: Some(blob.data),
        share_version: blob.share_version,
        commitment: Some(CommitmentJson(blob.commitment)),
        index: -1,
        signer: blob.signer.map(Vec::from),
    }
}

/// A header as local-da writes it: the height only at the top and as a string, left out when it
/// is zero; numbers in the nested places. Before the first block the time is the present.
fn header(store: &Store, now: u64, height: u64) -> Result<String, RpcError> {
    const NO_TIME: &str = "0001-01-01T00:00:00Z";
    if height > store.height() {
        return Err(RpcError::application(FROM_THE_FUTURE));
    }
    let time = store.time(height).map_err(|error| failed(&error))?;
    let time = jiff::Timestamp::from_nanosecond(time.unwrap_or(now).into()).unwrap_or_default();
    let mut header = json!({
        "header": { "chain_id": "", "height": 0, "time": NO_TIME },
        "commit": { "height": 0 },
        "dah": { "row_roots": null, "column_roots": null },
        "chain_id": "local-da",
        "time": time.to_string(),
    });
    if height != 0 {
        header["height"] = Value::from(height.to_string());
    }
    Ok(header.to_string())
}
