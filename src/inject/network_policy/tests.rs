use super::*;
use crate::inject::inject;
use crate::inject::settings::Lock;
use crate::inject::tests::{DEPLOYMENT, documents, settings};

/// With port 8080 of the pods `app: orders` closed in the namespace `shop`, beside these other documents.
fn beside(other: &str) -> Result<Vec<Value>, Mistake> {
    let documents = documents(&format!("{DEPLOYMENT}\n---\n{other}"));
    inject(documents, &settings(Lock::NetworkPolicy)).map(|injected| injected.documents)
}

fn policy(spec: &str) -> String {
    format!(
        "{{ apiVersion: {VERSION}, kind: NetworkPolicy, metadata: {{ name: other }}, spec: {{ {spec} }} }}"
    )
}

#[test]
fn a_port_keeps_its_protocol() {
    let mut documents = documents(DEPLOYMENT);
    let ports = documents[0].pointer_mut("/spec/template/spec/containers/0/ports").unwrap();
    let more = [(9090, "UDP"), (5060, "UDP"), (8080, "UDP"), (132, "SCTP")];
    ports
        .as_array_mut()
        .unwrap()
        .extend(more.iter().map(|(port, protocol)| json!({ "containerPort": port, "protocol": protocol })));
    let injected = inject(documents, &settings(Lock::NetworkPolicy)).unwrap();
    let made = injected.documents.last().unwrap();
    let expected = [(132, "SCTP"), (5060, "UDP"), (8081, "TCP"), (8443, "TCP"), (9090, "TCP"), (9090, "UDP")];
    let expected = expected.map(|(port, protocol)| json!({ "port": port, "protocol": protocol }));
    assert_eq!(made["spec"]["ingress"], json!([{ "ports": expected }]));
}

#[test]
fn another_policy_that_opens_the_port_is_refused() {
    let selects = [
        "podSelector: {}",
        "podSelector: { matchLabels: { app: orders } }",
        "podSelector: { matchLabels: { app: orders, pod-template-hash: 7d4b9c6f5 } }",
        "podSelector: { matchExpressions: [{ key: app, operator: In, values: [a, orders] }] }",
        "podSelector: { matchExpressions: [{ key: app, operator: NotIn, values: [a] }] }",
        "podSelector: { matchExpressions: [{ key: app, operator: Exists }] }",
        "podSelector: { matchExpressions: [{ key: tier, operator: DoesNotExist }] }",
        "podSelector: { matchExpressions: [{ key: batch.kubernetes.io/job-name, operator: Exists }] }",
        "podSelector: { matchExpressions: [{ key: app, operator: Resembles, values: [a] }] }",
        "policyTypes: [Egress, Ingress]",
        "policyTypes: []",
    ];
    let admits = [
        "ingress: [{}]",
        "ingress: [{ from: [{ podSelector: {} }] }]",
        "ingress: [{ ports: [] }]",
        "ingress: [{ ports: [{ port: 9090 }] }, { ports: [{ port: 8080, protocol: TCP }] }]",
        "ingress: [{ ports: [{ port: 8000, endPort: 8080 }] }]",
        "ingress: [{ ports: [{ port: http }] }]",
        "ingress: [{ ports: [{ protocol: TCP }] }]",
    ];
    let any = selects.iter().map(|selects| policy(&format!("{selects}, {}", admits[0])));
    for other in any.chain(admits.iter().map(|admits| policy(admits))) {
        let mistake = beside(&other).unwrap_err();
        assert_eq!(mistake.place, "NetworkPolicy other", "{other}");
        assert!(
            mistake.what.starts_with("admits port 8080 of Deployment orders, and policies add up"),
            "{mistake}"
        );
    }
}

#[test]
fn another_policy_that_leaves_the_port_closed_passes() {
    let elsewhere = policy("ingress: [{}]").replace("name: other", "name: other, namespace: till");
    let harmless = [
        policy("podSelector: {}, policyTypes: [Ingress]"),
        policy("ingress: []"),
        policy("policyTypes: [Egress], egress: [{}], ingress: [{}]"),
        policy("podSelector: { matchLabels: { app: till } }, ingress: [{}]"),
        policy("podSelector: { matchLabels: { tier: web } }, ingress: [{}]"),
        policy("podSelector: { matchExpressions: [{ key: app, operator: In, values: [a] }] }, ingress: [{}]"),
        policy(
            "podSelector: { matchExpressions: [{ key: app, operator: NotIn, values: [orders] }] }, ingress: [{}]",
        ),
        policy("podSelector: { matchExpressions: [{ key: app, operator: DoesNotExist }] }, ingress: [{}]"),
        policy("podSelector: { matchExpressions: [{ key: tier, operator: Exists }] }, ingress: [{}]"),
        policy("ingress: [{ ports: [{ port: 9090 }, { port: metrics }, { port: 8081, endPort: 8443 }] }]"),
        elsewhere,
    ];
    for other in harmless {
        let documents = beside(&other).unwrap();
        assert_eq!(documents.len(), 4, "{other}");
    }
}

#[test]
fn a_policy_that_cannot_be_read_is_refused() {
    let others = [
        "{ apiVersion: cilium.io/v2, kind: CiliumNetworkPolicy, metadata: { name: other } }",
        "{ apiVersion: projectcalico.org/v3, kind: NetworkPolicy, metadata: { name: other } }",
        "{ apiVersion: policy.networking.k8s.io/v1alpha1, kind: AdminNetworkPolicy, metadata: { name: other } }",
    ];
    for other in others {
        let mistake = beside(other).unwrap_err().to_string();
        assert!(mistake.contains("NetworkPolicy other: is no policy of networking.k8s.io/v1"), "{mistake}");
        assert!(mistake.contains("keep it in a file of its own"), "{mistake}");
    }
}

#[test]
fn the_policy_of_an_earlier_injection_is_no_other() {
    let documents = inject(documents(DEPLOYMENT), &settings(Lock::NetworkPolicy)).unwrap().documents;
    let fewer = Settings { app_ports: vec![9090], ..settings(Lock::NetworkPolicy) };
    let again = inject(documents.clone(), &fewer).unwrap().documents;
    assert_eq!(again.len(), documents.len());
    let ports = &again[2]["spec"]["ingress"][0]["ports"];
    assert_eq!(ports[0]["port"], 8080);
    assert_eq!(ports.as_array().unwrap().len(), 3);
}
