//! Nodes made by hand.

use althing_content::{
    BlockStore, Cid, MemoryStore, Version,
    dag_pb::{Link, Node},
};

/// Keeps a node as it is and gives its name.
pub fn put_node(store: &MemoryStore, node: &Node) -> Cid {
    let block = node.encode();
    let cid = Cid::of_dag_pb_block(Version::V1, &block);
    store.put(&cid, &block).expect("put");
    cid
}

pub fn link(cid: Cid, name: &str) -> Link {
    Link { cid, name: name.to_owned(), dag_size: 1 }
}
