//! Another implementation of gRPC asks.

use std::net::SocketAddr;

use axum::http::uri::PathAndQuery;
use baton_messages::wire::rpc::{
    Empty, GetBlockRequest, GetBlockResponse, GetGenesisDaHeightResponse, GetSignerInfoResponse, Identifier,
};
use prost::Message;
use tonic::client::Grpc;
use tonic::transport::Channel;
use tonic::{Code, Request, Status};
use tonic_prost::ProstCodec;

use super::node::{Setup, blocks, log, signature, signer};

async fn call<Q, A>(address: SocketAddr, path: &'static str, request: Q) -> Result<A, Status>
where
    Q: Message + 'static,
    A: Message + Default + 'static,
{
    let channel = Channel::from_shared(format!("http://{address}")).unwrap().connect().await.unwrap();
    let mut client = Grpc::new(channel);
    client.ready().await.unwrap();
    let path = PathAndQuery::from_static(path);
    client
        .unary(Request::new(request), path, ProstCodec::<Q, A>::default())
        .await
        .map(|answer| answer.into_inner())
}

#[tokio::test]
async fn grpc_over_h2c_answers_what_the_store_holds() {
    Setup::new(log())
        .run(async |node| {
            let request = GetBlockRequest { identifier: Some(Identifier::Height(2)) };
            let answer: GetBlockResponse =
                call(node.address, "/evnode.v1.StoreService/GetBlock", request).await.unwrap();
            let header = answer.block.unwrap().header.unwrap();
            assert_eq!(header.header.unwrap().height, 2);
            assert_eq!(header.signature, signature(&blocks()[1]).signature);
            assert_eq!((answer.header_da_height, answer.data_da_height), (7, 8));

            let path = "/evnode.v1.StoreService/GetGenesisDaHeight";
            let answer: GetGenesisDaHeightResponse = call(node.address, path, Empty {}).await.unwrap();
            assert_eq!(answer.height, 7);

            let path = "/evnode.v1.ConfigService/GetSignerInfo";
            let answer: GetSignerInfoResponse = call(node.address, path, Empty {}).await.unwrap();
            assert_eq!(answer.address, signer().address);
        })
        .await;
}

#[tokio::test]
async fn grpc_gets_its_own_status_codes() {
    Setup::new(vec![])
        .run(async |node| {
            let newest = GetBlockRequest { identifier: Some(Identifier::Height(0)) };
            let path = "/evnode.v1.StoreService/GetBlock";
            let status = call::<_, GetBlockResponse>(node.address, path, newest).await.unwrap_err();
            assert_eq!(status.code(), Code::NotFound, "{status}");
            let status = call::<_, GetBlockResponse>(node.address, path, GetBlockRequest::default())
                .await
                .unwrap_err();
            assert_eq!(status.code(), Code::InvalidArgument, "{status}");
            let path = "/evnode.v1.StoreService/Nothing";
            let status = call::<_, Empty>(node.address, path, Empty {}).await.unwrap_err();
            assert_eq!(status.code(), Code::Unimplemented, "{status}");
            let path = "/nobody.v1.Nothing/Nothing";
            let status = call::<_, Empty>(node.address, path, Empty {}).await.unwrap_err();
            assert_eq!(status.code(), Code::Unimplemented, "{status}");
        })
        .await;
}
