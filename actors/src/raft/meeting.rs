//! Members are each other's peers: each tells the others where its peer-to-peer network is reached.
//!
//! Only the leader tells blocks. Whoever follows from peers is often connected to members that do not
//! lead, ev-node's full nodes to two of all they were given: what the leader tells must get to those
//! over the other members (P7).

use actix::{AsyncContext, Context, Handler, MessageResult, WrapFuture};
use baton_messages::p2p::{MAX_ADDRESS, MeetMembers};

use super::Raft;
use super::transport::Class;
use super::wire::Request;

impl Handler<MeetMembers> for Raft {
    type Result = MessageResult<MeetMembers>;

    fn handle(&mut self, message: MeetMembers, ctx: &mut Context<Self>) -> Self::Result {
        let Some(view) = self.shared.view() else { return MessageResult(vec![]) };
        let membership = view.membership_config.membership();
        let own = self.shared.id();
        if let Some(address) = best(&message.own, &self.shared.own.address) {
            let request = Request::Peer { address: address.to_owned() };
            for (_, member) in membership.nodes().filter(|(id, _)| **id != own) {
                let (shared, member, request) = (self.shared.clone(), member.clone(), request.clone());
                let told = async move {
                    // Who does not answer, or is of a version that knows no peers, is told again.
                    let _ = shared.ask(member, Class::Bulk, &request, shared.times.question).await;
                };
                ctx.spawn(told.into_actor(self));
            }
        }
        let mut peers = self.shared.peers();
        peers.retain(|id, _| *id != own && membership.get_node(id).is_some());
        MessageResult(peers.into_values().collect())
    }
}

/// Which of the addresses where this node listens the others should dial: the one on the host that
/// the cluster knows it by, or one that is not on loopback, or any.
fn best<'a>(listens: &'a [String], advertised: &str) -> Option<&'a str> {
    let fits = |address: &&String| address.len() <= MAX_ADDRESS;
    let of_host = |address: &&String| {
        let host = advertised.rsplit_once(':').map_or("", |(host, _)| host.trim_matches(['[', ']']));
        host_of(address) == Some(host)
    };
    let far =
        |address: &&String| !host_of(address).is_some_and(|host| host.starts_with("127.") || host == "::1");
    let listens = || listens.iter().filter(fits);
    let found = listens().find(of_host).or_else(|| listens().find(far)).or_else(|| listens().next());
    found.map(String::as_str)
}

/// The host of a multiaddress such as `/ip4/10.0.0.5/tcp/7676/p2p/12D3…`.
fn host_of(address: &str) -> Option<&str> {
    address.split('/').nth(2)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(host: &str) -> String {
        let kind = if host.contains(':') { "ip6" } else { "ip4" };
        format!("/{kind}/{host}/tcp/7676/p2p/12D3")
    }

    #[test]
    fn members_dial_each_other_where_the_cluster_knows_them() {
        let listens = ["127.0.0.1", "::1", "192.168.1.2", "10.0.0.5", "fd00::5"].map(address);
        assert_eq!(best(&listens, "10.0.0.5:5001"), Some(&*listens[3]));
        assert_eq!(best(&listens, "[fd00::5]:5001"), Some(&*listens[4]));
        assert_eq!(best(&listens, "127.0.0.1:5001"), Some(&*listens[0]), "all on one machine");
        assert_eq!(best(&listens, "node1.example:5001"), Some(&*listens[2]), "not on loopback");
        assert_eq!(best(&listens[..1], "10.0.0.5:5001"), Some(&*listens[0]));
        assert_eq!(best(&[], "10.0.0.5:5001"), None);
        let long = [format!("{}{}", address("10.0.0.5"), "x".repeat(MAX_ADDRESS))];
        assert_eq!(best(&long, "10.0.0.5:5001"), None);
    }
}
