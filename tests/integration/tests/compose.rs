//! `docker compose up`: the table of the demo, and every scenario of federation, in containers.

// `cargo xtask test --no-compose` skips this module by name.
mod containers {
    use anyhow::{Context as _, Result, ensure};
    use std::process::Command;

    use spiffe_authz_integration::compose::{Containers, Project};
    use spiffe_authz_integration::scratch::Scratch;
    use spiffe_authz_integration::{scenario, tools};

    const SERVER: &str = "httpbin.example.org";

    const PAGE: &str = include_str!("../../../docs/federate.md");

    /// The table of the demo: caller, server and request; status and decision.
    const TABLE: &str = "\
        CALLER ASKS REQUEST STATUS DECISION
        spiffe://example.org/ns/default/sa/sleep httpbin.example.org GET /status/200 200 allow default/sleep-reads 0
        spiffe://example.io/ns/default/sa/sleep httpbin.example.org GET /status/200 403 deny no-policy-allows
        spiffe://example.io/ns/default/sa/sleep httpbin.example.org GET /public/news 200 allow default/partners-read-public 0
        spiffe://example.io/ns/default/sa/sleep httpbin.example.org POST /orders 403 deny no-policy-allows
        spiffe://example.io/ns/shop/sa/web httpbin.example.org POST /orders 200 allow default/web-orders 0
        spiffe://example.io/ns/shop/sa/web httpbin.example.org GET /public/admin 403 deny denied-by-policy default/nobody-reads-admin 0
        spiffe://example.org/ns/other/sa/stranger httpbin.example.org GET /public/news 403 deny no-policy-allows
        spiffe://example.org/ns/default/sa/sleep gateway.example.org GET /status/200 200 allow edge/own-workloads 0
        spiffe://example.io/ns/default/sa/sleep gateway.example.org GET /partners/news 200 allow edge/partners 0
        spiffe://example.io/ns/shop/sa/web gateway.example.org GET /orders 403 deny no-policy-allows";

    #[test]
    fn the_demo_and_every_scenario() -> Result<()> {
        let project = Project::start()?;
        let result = all(&project);
        if result.is_err() {
            eprintln!("{}", project.logs()?);
        }
        result
    }

    fn all(project: &Project) -> Result<()> {
        assert_eq!(words(&project.demo()?), words(TABLE));
        assert!(on_page().count() > 2 && on_page().all(|row| words(TABLE).contains(&words(row)[0])), "federate.md");
        let first_run = project.log(SERVER)?;
        containers_are_identified_by_their_labels(project)?;
        scenario::play(&scenario::federation()?, &Containers::new(project)?)?;
        assert_eq!(project.fetch_new_authority()?, (1, 2), "authorities of example.io that example.org knows");
        // Repeat it while everything runs.
        let before = project.log(SERVER)?;
        project.up()?;
        let after = project.log(SERVER)?;
        learned_policies_change_no_verdict(&first_run, after.strip_prefix(&before).context("the log was replaced")?)?;
        assert_eq!(words(&project.demo()?), words(&format!("{TABLE}\n{TABLE}")));
        Ok(())
    }

    /// Learns policies from the log of a run, and decides the requests of another one with them.
    fn learned_policies_change_no_verdict(log: &str, other: &str) -> Result<()> {
        let scratch = Scratch::new()?;
        scratch.write("first.log", log)?;
        scratch.write("other.log", other)?;
        let run = |arguments: &[&str]| -> Result<String> {
            let mut command = Command::new(tools::path(tools::COMMAND)?);
            let output = command.args(arguments).current_dir(scratch.path()).output()?;
            let text = String::from_utf8_lossy(&output.stderr).into_owned();
            ensure!(output.status.success(), "{arguments:?}: {}{text}", String::from_utf8_lossy(&output.stdout));
            Ok(text)
        };
        let domains = ["--trust-domain=example.org", "--federated-trust-domain=example.io"];
        let learned = run(&[&["learn", "--output=learned.yaml", "first.log"], &domains[..]].concat())?;
        // The three callers, and the gateway with the requests of two of them.
        ensure!(learned.contains("4 policies for 4 callers, from 5 requests"), "{learned}");
        let replayed = run(&["replay", "--policy=learned.yaml", "other.log"])?;
        ensure!(replayed.contains(": 0 would change, 0 unknown"), "{replayed}");
        Ok(())
    }

    fn containers_are_identified_by_their_labels(project: &Project) -> Result<()> {
        let none = project.container_identity(&[]);
        ensure!(
            none.is_err_and(|error| error.to_string().contains("no identity issued")),
            "an unregistered container got an identity"
        );
        let identity = project.container_identity(&["spiffe-authz.workload=stranger"])?;
        let ids: Vec<&str> = identity.lines().filter(|line| line.starts_with("SPIFFE ID:")).collect();
        assert_eq!(words(&ids.join("\n")), words("SPIFFE ID: spiffe://example.org/ns/other/sa/stranger"));
        Ok(())
    }

    /// The rows in docs/federate.md.
    fn on_page() -> impl Iterator<Item = &'static str> {
        let (_, section) = PAGE.split_once("\n## Run the example\n").unwrap_or_default();
        let table = section.split("```text\n").nth(1).and_then(|rest| rest.split("…").next());
        table.unwrap_or_default().lines()
    }

    fn words(table: &str) -> Vec<Vec<&str>> {
        table.lines().map(|line| line.split_whitespace().collect()).collect()
    }
}
