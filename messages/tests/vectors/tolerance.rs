//! What a decoder takes and what it refuses.

use baton_messages::chain::{
    DaHeaderEnvelope, Data, Header, P2pSignedHeader, SignedData, SignedHeader, Signer,
};
use baton_messages::types::{Hash, Height, Timestamp};
use baton_messages::wire::validate::Invalid;
use serde_json::Value;

use crate::headers::{header_of, signed_of};
use crate::{Vector, bytes, text};

fn decode_header(case: &Value) -> Header {
    assert_eq!(text(&case["decode_as"]), "Header");
    Header::decode(&bytes(&case["wire"])).unwrap()
}

fn is_block_2(header: &Header) {
    let vector = Vector::named("header-block-2");
    assert_eq!(*header, header_of(vector));
    assert_eq!(header.encode(), vector.out_bytes("header_proto"));
    assert_eq!(header.hash(), vector.out_hash("header_hash"));
}

pub fn decode_cases(vector: Vector) {
    for case in vector.output("cases").as_array().unwrap() {
        decode_case(case);
    }
}

fn decode_case(case: &Value) {
    let wire = bytes(&case["wire"]);
    match text(&case["name"]) {
        "unknown scalar field 13 is dropped"
        | "empty legacy field is ignored"
        | "field 5 with varint wire type is skipped"
        | "missing version submessage"
        | "fields out of order" => is_block_2(&decode_header(case)),
        "unknown bytes field 5 is kept as legacy last_commit_hash" => {
            let header = decode_header(case);
            assert!(header.is_legacy());
            let expected = text(&case["expect"]).rsplit(' ').next().unwrap();
            assert_eq!(header.hash(), Hash(hex::decode(expected).unwrap().try_into().unwrap()));
            assert_eq!(header.encode(), wire);
        }
        "duplicate height, last wins" => assert_eq!(decode_header(case).height, Height(9)),
        // The known difference: Go takes the wrong wire type for an unknown field.
        "height encoded as bytes (wrong wire type)"
        | "legacy field longer than 1024 bytes"
        | "invalid UTF-8 chain id" => {
            assert!(Header::decode(&wire).is_err(), "{case}");
        }
        "SignedHeader without header" | "SignedHeader with garbage pub_key" => {
            assert!(SignedHeader::decode(&wire).is_err(), "{case}");
            assert!(DaHeaderEnvelope::decode(&wire).is_err(), "{case}");
            assert!(P2pSignedHeader::decode(&wire).is_err(), "{case}");
        }
        "SignedHeader, signer without pub_key" => {
            let signed = SignedHeader::decode(&wire).unwrap();
            assert_eq!(signed.signer, Signer::default());
            is_block_2(&signed.header);
        }
        "P2PSignedHeader bytes without hint = SignedHeader bytes" => {
            let message = P2pSignedHeader::decode(&wire).unwrap();
            assert_eq!(message.da_height_hint, 0);
            assert_eq!(message.signed, signed_of(Vector::named("header-block-2")));
        }
        "SignedHeader decoder fed a DA envelope" => {
            assert_eq!(SignedHeader::decode(&wire), Ok(signed_of(Vector::named("header-block-2"))));
        }
        "Data blob fed to the header classifier" => {
            assert!(DaHeaderEnvelope::decode(&wire).is_err());
            SignedData::decode(&wire).unwrap().verify().unwrap();
        }
        "empty Data" => {
            let data = Data::decode(&wire).unwrap();
            assert_eq!(data, Data::default());
            assert_eq!(data.validate(Timestamp(1)), Err(Invalid::NoMetadata));
        }
        other => panic!("no check for the decode case: {other}"),
    }
}
