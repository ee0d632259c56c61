//! Thousands of hostile histories of a cluster.

use std::time::Duration;

use sim::{Cluster, cluster_run};

#[test]
fn rate() {
    let began = std::time::Instant::now();
    let virt = cluster_run(7, |seed| {
        let mut cluster = Cluster::start(3, seed);
        for n in 0..600 {
            let up: Vec<usize> = cluster.up().collect();
            cluster.submit(up[n % 3], &format!("k{n}=v"));
            cluster.pass(Duration::from_millis(100));
        }
        println!("{:?} {:?}", cluster.heights(), cluster.net().calls());
        cluster.elapsed()
    });
    println!("{}x", virt.as_secs_f64() / began.elapsed().as_secs_f64());
}
