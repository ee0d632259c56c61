//! How one block of the dev DA layer lies in its file.
//!
//! Length and CRC-32 of the payload, then the payload: height, time, number of blobs, and for
//! each blob namespace, share version, signer, commitment and data. Integers are little-endian.

use std::io;

/// Length and checksum.
const PREFIX: usize = 8;
/// The part of a frame that every block has: prefix, height, time and number of blobs.
pub const START: usize = PREFIX + 8 + 8 + 4;
/// The longest payload. A request of 100 MiB holds less, as its blobs are in base64.
const LONGEST: usize = 128 << 20;

/// A blob as it was submitted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredBlob {
    /// Where.
    pub namespace: [u8; 29],
    /// What.
    pub data: Vec<u8>,
    /// 0, or 1 when there is a signer.
    pub share_version: u8,
    /// The commitment to the data.
    pub commitment: [u8; 32],
    /// The account of a version-1 blob.
    pub signer: Option<[u8; 20]>,
}

/// Writes a block.
pub fn encode(height: u64, time: u64, blobs: &[StoredBlob]) -> io::Result<Vec<u8>> {
    let data: usize = blobs.iter().map(|blob| blob.data.len() + 128).sum();
    if START + data > LONGEST {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, "the block would be over 128 MiB"));
    }
    let mut bytes = Vec::with_capacity(START + data);
    bytes.extend_from_slice(&[0; PREFIX]);
    bytes.extend_from_slice(&height.to_le_bytes());
    bytes.extend_from_slice(&time.to_le_bytes());
    bytes.extend_from_slice(&bounded(blobs.len()).to_le_bytes());
    for blob in blobs {
        bytes.extend_from_slice(&blob.namespace);
        bytes.push(blob.share_version);
        bytes.push(u8::from(blob.signer.is_some()));
        bytes.extend_from_slice(&blob.signer.unwrap_or_default());
        bytes.extend_from_slice(&blob.commitment);
        bytes.extend_from_slice(&bounded(blob.data.len()).to_le_bytes());
        bytes.extend_from_slice(&blob.data);
    }
    let length = bounded(bytes.len() - PREFIX);
    let checksum = crc32fast::hash(&bytes[PREFIX..]);
    bytes[..4].copy_from_slice(&length.to_le_bytes());
    bytes[4..PREFIX].copy_from_slice(&checksum.to_le_bytes());
    Ok(bytes)
}

fn bounded(length: usize) -> u32 {
    u32::try_from(length).expect("blocks are at most 128 MiB")
}

/// The length of a whole frame from its start; `None` when no frame is that short or long.
pub fn length(start: &[u8]) -> Option<usize> {
    let mut start = start;
    let payload = number(take(&mut start)?) as usize;
    (START - PREFIX..=LONGEST).contains(&payload).then_some(PREFIX + payload)
}

/// The time in the start of a frame.
pub fn time(start: &[u8; START]) -> u64 {
    let mut rest = &start[PREFIX + 8..];
    take(&mut rest).map(u64::from_le_bytes).expect("the start of a frame holds a time")
}

/// Whether a frame is whole, undamaged and (when given) of this height. Returns whether the
/// block is empty.
pub fn check(frame: &[u8], height: Option<u64>) -> Option<bool> {
    let mut rest = frame;
    take::<4>(&mut rest)?;
    let checksum = number(take(&mut rest)?);
    if crc32fast::hash(rest) != checksum {
        return None;
    }
    let found = u64::from_le_bytes(take(&mut rest)?);
    take::<8>(&mut rest)?;
    let blobs = number(take(&mut rest)?);
    height.is_none_or(|height| height == found).then_some(blobs == 0)
}

/// The blobs of a frame; `None` when it is damaged.
pub fn decode(frame: &[u8]) -> Option<Vec<StoredBlob>> {
    check(frame, None)?;
    let mut rest = frame.get(START - 4..)?;
    let count = number(take(&mut rest)?);
    let blobs = (0..count).map(|_| decode_blob(&mut rest)).collect::<Option<_>>()?;
    rest.is_empty().then_some(blobs)
}

fn decode_blob(rest: &mut &[u8]) -> Option<StoredBlob> {
    let namespace = take(rest)?;
    let [share_version, has_signer] = take(rest)?;
    let signer = take(rest)?;
    let commitment = take(rest)?;
    let length = number(take(rest)?) as usize;
    let (data, after) = rest.split_at_checked(length)?;
    *rest = after;
    let signer = (has_signer != 0).then_some(signer);
    Some(StoredBlob { namespace, data: data.to_vec(), share_version, commitment, signer })
}

const fn number(bytes: [u8; 4]) -> u32 {
    u32::from_le_bytes(bytes)
}

fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (first, after) = rest.split_first_chunk()?;
    *rest = after;
    Some(*first)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_lies_in_the_file_as_it_always_did() {
        let plain = StoredBlob {
            namespace: [1; 29],
            data: vec![2, 3],
            share_version: 0,
            commitment: [4; 32],
            signer: None,
        };
        let signed = StoredBlob { share_version: 1, signer: Some([5; 20]), ..plain.clone() };
        let blobs = [plain, signed];
        let frame = encode(7, 8, &blobs).unwrap();
        let blob = |head: &str, signer: &str| {
            [&"01".repeat(29), head, &signer.repeat(20), &"04".repeat(32), "02000000", "0203"].concat()
        };
        let payload =
            ["0700000000000000", "0800000000000000", "02000000", &blob("0000", "00"), &blob("0101", "05")];
        let golden = ["c6000000", "73ebee8c", &payload.concat()].concat();
        assert_eq!(hex::encode(&frame), golden);
        assert_eq!(decode(&frame).unwrap(), blobs);
        assert_eq!(length(&frame), Some(frame.len()));
    }

    #[test]
    fn a_frame_with_any_bit_flipped_is_not_read() {
        let frame = encode(7, 8, &[]).unwrap();
        for bit in 32..frame.len() * 8 {
            let mut damaged = frame.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(decode(&damaged), None, "bit {bit}");
        }
    }
}
