//! The programs of a mesh except Envoy and SPIRE: Kubernetes, Istio, SPIRE's controller manager, KWOK, Helm and the
//! Gateway API. Go builds them from their modules.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use super::go::GoModule;
use crate::versions::{
    ETCD, ETCD_SUM, GATEWAY_API, GATEWAY_API_SUM, HELM, HELM_SUM, ISTIO, ISTIO_SUM, KUBERNETES, KUBERNETES_LIBRARIES,
    KUBERNETES_LINK, KUBERNETES_SUM, KWOK, KWOK_SUM, SPIRE_CONTROLLER_MANAGER, SPIRE_CONTROLLER_MANAGER_SUM,
};
use crate::workspace::cached;

/// Removes the symbol tables, which no test uses. This halves the size of the programs.
const STRIPPED: &str = "-s -w";

/// The cache entries: directories with programs and other files of their modules.
pub(crate) struct ControlPlane {
    etcd: PathBuf,
    kubernetes: PathBuf,
    istio: PathBuf,
    controller_manager: PathBuf,
    gateway_api: PathBuf,
    kwok: PathBuf,
    helm: PathBuf,
}

impl ControlPlane {
    /// Finds each entry, and builds missing ones.
    pub(crate) fn find_or_get() -> Result<Self> {
        Ok(Self {
            etcd: etcd()?,
            kubernetes: kubernetes()?,
            istio: istio()?,
            controller_manager: controller_manager()?,
            gateway_api: gateway_api()?,
            kwok: kwok()?,
            helm: helm()?,
        })
    }

    /// Sets the environment variables with these directories, for `tests/istio-mesh`.
    pub(crate) fn describe_to(&self, command: &mut Command) {
        command
            .env("SPIFFE_AUTHZ_ETCD", &self.etcd)
            .env("SPIFFE_AUTHZ_KUBERNETES", &self.kubernetes)
            .env("SPIFFE_AUTHZ_ISTIO", &self.istio)
            .env("SPIFFE_AUTHZ_CONTROLLER_MANAGER", &self.controller_manager)
            .env("SPIFFE_AUTHZ_GATEWAY_API", &self.gateway_api)
            .env("SPIFFE_AUTHZ_KWOK", &self.kwok)
            .env("SPIFFE_AUTHZ_HELM", &self.helm);
    }
}

fn etcd() -> Result<PathBuf> {
    let module = GoModule {
        path: "go.etcd.io/etcd/server/v3",
        version: ETCD,
        sum: ETCD_SUM,
        beside: ETCD,
        replace: None,
        tags: "",
        link: STRIPPED,
        programs: &[("etcd", ".")],
    };
    cached(&format!("etcd-{ETCD}"), |directory| {
        eprintln!("etcd {ETCD}: building it from the Go module (one minute without a cache)");
        module.build(directory)
    })
}

fn kubernetes() -> Result<PathBuf> {
    let module = GoModule {
        path: "k8s.io/kubernetes",
        version: KUBERNETES,
        sum: KUBERNETES_SUM,
        beside: KUBERNETES_LIBRARIES,
        replace: None,
        tags: "",
        link: &format!("{STRIPPED} {KUBERNETES_LINK}"),
        programs: &[
            ("kube-apiserver", "./cmd/kube-apiserver"),
            ("kube-controller-manager", "./cmd/kube-controller-manager"),
            ("kube-scheduler", "./cmd/kube-scheduler"),
            ("kubectl", "./cmd/kubectl"),
        ],
    };
    cached(&format!("kubernetes-{KUBERNETES}"), |directory| {
        eprintln!("Kubernetes {KUBERNETES}: building it from the Go module (six minutes without a cache)");
        module.build(directory)
    })
}

fn istio() -> Result<PathBuf> {
    let module = GoModule {
        path: "istio.io/istio",
        version: ISTIO,
        sum: ISTIO_SUM,
        beside: ISTIO,
        replace: None,
        tags: "",
        link: STRIPPED,
        programs: &[("pilot-discovery", "./pilot/cmd/pilot-discovery"), ("istioctl", "./istioctl/cmd/istioctl")],
    };
    cached(&format!("istio-{ISTIO}"), |directory| {
        eprintln!("Istio: building istiod and istioctl from the Go module (four minutes without a cache)");
        module.build(directory)
    })
}

fn controller_manager() -> Result<PathBuf> {
    let module = GoModule {
        path: "github.com/spiffe/spire-controller-manager",
        version: SPIRE_CONTROLLER_MANAGER,
        sum: SPIRE_CONTROLLER_MANAGER_SUM,
        beside: SPIRE_CONTROLLER_MANAGER,
        replace: None,
        tags: "",
        link: STRIPPED,
        programs: &[("spire-controller-manager", "./cmd")],
    };
    cached(&format!("spire-controller-manager-{SPIRE_CONTROLLER_MANAGER}"), |directory| {
        eprintln!(
            "SPIRE controller manager {SPIRE_CONTROLLER_MANAGER}: building it from the Go module (one minute without a cache)"
        );
        module.build(directory)?;
        copy(&module.source()?.join("config/crd/bases"), &directory.join("crds"))
    })
}

fn gateway_api() -> Result<PathBuf> {
    let module = GoModule {
        path: "sigs.k8s.io/gateway-api",
        version: GATEWAY_API,
        sum: GATEWAY_API_SUM,
        beside: GATEWAY_API,
        replace: None,
        tags: "",
        link: "",
        programs: &[],
    };
    cached(&format!("gateway-api-{GATEWAY_API}"), |directory| {
        copy(&module.source()?.join("config/crd/standard"), &directory.join("crds"))
    })
}

fn kwok() -> Result<PathBuf> {
    let module = GoModule {
        path: "sigs.k8s.io/kwok",
        version: KWOK,
        sum: KWOK_SUM,
        beside: KWOK,
        replace: None,
        tags: "",
        link: STRIPPED,
        programs: &[("kwok", "./cmd/kwok")],
    };
    cached(&format!("kwok-{KWOK}"), |directory| {
        eprintln!("KWOK {KWOK}: building it from the Go module (one minute without a cache)");
        module.build(directory)?;
        let stages = module.source()?.join("kustomize/stage");
        copy(&stages.join("pod/fast"), &directory.join("stages/pod"))?;
        copy(&stages.join("node/fast"), &directory.join("stages/node"))
    })
}

fn helm() -> Result<PathBuf> {
    let module = GoModule {
        path: "helm.sh/helm/v3",
        version: HELM,
        sum: HELM_SUM,
        beside: HELM,
        replace: None,
        tags: "",
        link: STRIPPED,
        programs: &[("helm", "./cmd/helm")],
    };
    cached(&format!("helm-{HELM}"), |directory| {
        eprintln!("Helm {HELM}: building it from the Go module (two minutes without a cache)");
        module.build(directory)
    })
}

/// Copies the files of a directory, but not its subdirectories, and not the read-only mode that they have in the module
/// cache.
fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from).with_context(|| format!("{}: cannot read the directory", from.display()))? {
        let entry = entry?;
        if entry.file_type()?.is_file() {
            fs::write(to.join(entry.file_name()), fs::read(entry.path())?)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::copy;
    use crate::versions::{ISTIO, ISTIO_SUM};
    use crate::workspace::root;

    #[test]
    fn one_istio_is_used_everywhere() {
        let go_mod = fs::read_to_string(root().join("tests/istio-rbac/go.mod")).expect("tests/istio-rbac/go.mod");
        assert!(go_mod.contains(&format!("\tistio.io/istio v{ISTIO}\n")), "tests/istio-rbac uses a different Istio");
        let go_sum = fs::read_to_string(root().join("tests/istio-rbac/go.sum")).expect("tests/istio-rbac/go.sum");
        assert!(go_sum.contains(&format!("\nistio.io/istio v{ISTIO} {ISTIO_SUM}\n")), "the sums of Istio differ");
    }

    #[test]
    fn the_files_of_a_directory_are_copied() {
        let directory = std::env::temp_dir().join(format!("spiffe-authz-copy-{}", std::process::id()));
        let (from, to) = (directory.join("from"), directory.join("to"));
        fs::create_dir_all(from.join("testdata")).expect("a directory");
        fs::write(from.join("stage.yaml"), "kind: Stage").expect("a file");
        copy(&from, &to).expect("a copy");
        let copied: Vec<_> =
            fs::read_dir(&to).expect("a directory").map(|entry| entry.expect("an entry").file_name()).collect();
        fs::remove_dir_all(&directory).expect("the directory removed");
        assert_eq!(copied, ["stage.yaml"]);
    }
}
