//! A mesh on one machine: etcd, Kubernetes, istiod, SPIRE and its controller manager, all real, and Envoys as processes.
//!
//! Only the nodes are played, by KWOK: no kubelet starts a container, so the Envoys run beside the pods that they belong to.

pub mod control_plane;
pub mod controller_manager;
pub mod environment;
pub mod istio;
pub mod kubectl;
pub mod mesh;
pub mod proxy;
pub mod shell;
pub mod spire;
pub mod tools;
