use super::*;

/// Whole reviews, as API servers send them.
const POD_CREATE: &str = include_str!("../../../tests/deploy/admission/pod-create.json");
const POD_DELETE: &str = include_str!("../../../tests/deploy/admission/pod-delete.json");
const SERVICE_UPDATE: &str = include_str!("../../../tests/deploy/admission/service-update.json");

fn parsed(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

fn answered(review: &Value) -> Value {
    let answer = parsed(&super::review(review.to_string().as_bytes()).unwrap());
    assert_eq!(answer["apiVersion"], "admission.k8s.io/v1");
    assert_eq!(answer["kind"], "AdmissionReview");
    assert_eq!(answer["response"]["uid"], review["request"]["uid"]);
    answer["response"].clone()
}

fn patched(object: &Value, response: &Value) -> Value {
    use base64::Engine as _;
    let patch =
        base64::engine::general_purpose::STANDARD.decode(response["patch"].as_str().unwrap()).unwrap();
    let patch: Vec<Value> = serde_json::from_slice(&patch).unwrap();
    let mut after = object.clone();
    for change in patch {
        assert_eq!(change["op"], "add");
        let name = change["path"].as_str().unwrap().strip_prefix("/spec/").unwrap();
        after["spec"][name] = change["value"].clone();
    }
    after
}

/// A review of another pod.
fn of_pod(change: impl FnOnce(&mut Value)) -> Value {
    let mut review = parsed(POD_CREATE);
    change(&mut review["request"]["object"]);
    review
}

#[test]
fn a_webhook_does_to_a_pod_what_the_command_does() {
    let review = parsed(POD_CREATE);
    let pod = &review["request"]["object"];
    let annotations = pod["metadata"]["annotations"].as_object().unwrap();
    let settings = Settings::try_from(Choices::of_annotations(annotations).unwrap()).unwrap();
    let expected = inject(vec![pod.clone()], &settings).unwrap().documents;

    let response = answered(&review);
    assert_eq!(response["allowed"], true);
    assert_eq!(response["patchType"], "JSONPatch");
    assert_eq!(response.get("warnings"), None);
    let after = patched(pod, &response);
    assert_eq!(std::slice::from_ref(&after), expected.as_slice());
    let touched = |name: &&String| pod["spec"].get(name.as_str()) != after["spec"].get(name.as_str());
    let spec = after["spec"].as_object().unwrap();
    assert_eq!(spec.keys().filter(touched).collect::<Vec<_>>(), INJECTED);
    // The API server asks again after other webhooks have run.
    let again = answered(&of_pod(|pod| *pod = after.clone()));
    assert_eq!([patched(&after, &again)], expected.as_slice());

    let spec = &after["spec"];
    let application = &spec["containers"][0];
    assert_eq!(spec["initContainers"][0]["name"], "valgate");
    assert_eq!(spec["terminationGracePeriodSeconds"], 45);
    assert_eq!(application["env"][2], json!({ "name": "HOST", "value": "127.0.0.1" }));
    assert_eq!(application["lifecycle"]["preStop"]["sleep"]["seconds"], 5);
    assert_eq!(application["readinessProbe"]["httpGet"]["port"], 8081);
    assert_eq!(application["livenessProbe"], pod["spec"]["containers"][0]["livenessProbe"]);
    // What the API server had put in before.
    assert_eq!(application["volumeMounts"], pod["spec"]["containers"][0]["volumeMounts"]);
    let volumes = spec["volumes"].as_array().unwrap().iter().map(|volume| &volume["name"]);
    let names = ["cache", "kube-api-access-8qkzd", "valgate-configuration", "valgate-state"];
    assert_eq!(volumes.collect::<Vec<_>>(), names);
}

#[test]
fn a_rehearsal_is_answered_like_the_real_thing() {
    let mut review = parsed(POD_CREATE);
    let real = answered(&review);
    review["request"]["dryRun"] = json!(true);
    assert_eq!(answered(&review), real);
}

#[test]
fn a_service_that_is_written_anew_is_pointed_anew() {
    let review = parsed(SERVICE_UPDATE);
    let service = &review["request"]["object"];
    let after = patched(service, &answered(&review));
    let metrics = &service["spec"]["ports"][1];
    let web = json!({
        "name": "web", "protocol": "TCP", "port": 443, "targetPort": "valgate", "appProtocol": "https",
    });
    assert_eq!(after["spec"]["ports"], json!([web, metrics]));
    assert_eq!(after["metadata"], service["metadata"]);
}

#[test]
fn what_does_not_ask_passes() {
    let mut unasked = parsed(SERVICE_UPDATE);
    unasked["request"]["object"]["metadata"]["annotations"] = json!({});
    let mut nothing = parsed(POD_DELETE);
    nothing["request"].as_object_mut().unwrap().remove("object");
    let others = [
        // The pod that goes asked for the gateway; there is nothing to put it into.
        parsed(POD_DELETE),
        nothing,
        unasked,
        of_pod(|pod| pod["metadata"]["annotations"]["valgate/inject"] = json!("false")),
        of_pod(|pod| *pod = json!({ "kind": "Pod", "metadata": {} })),
        of_pod(|pod| *pod = json!({ "kind": "Secret" })),
        of_pod(|pod| *pod = json!(3)),
    ];
    for other in others {
        let response = answered(&other);
        assert_eq!(response["allowed"], true);
        assert_eq!(response.get("patch"), None);
    }
}

#[test]
fn a_pod_that_asks_and_cannot_have_it_does_not_run() {
    let cases = [
        (json!({}), "app-port is missing"),
        (json!({ "valgate/app-port": "8080" }), "a sidecar that can be walked around"),
        (json!({ "valgate/app-port": "http" }), "is not a list of ports"),
        (
            json!({ "valgate/app-port": "8080", "valgate/lock": "network-policy" }),
            "cannot make a NetworkPolicy",
        ),
        (json!({ "valgate/app-prot": "8080" }), "annotation valgate/app-prot is not known"),
        (
            json!({ "valgate/app-port": "8080", "valgate/lock": "loopback", "valgate/bind-env": "HOST=0.0.0.0" }),
            "listen on every address",
        ),
        (
            json!({ "valgate/app-port": "8080", "valgate/lock": "loopback", "valgate/bind-arg": "--local" }),
            "Pod orders-7d4b9c6f5-, container orders: has neither `args` nor `command`",
        ),
    ];
    for (mut annotations, expected) in cases {
        annotations["valgate/inject"] = json!("true");
        let response = answered(&of_pod(|pod| pod["metadata"]["annotations"] = annotations));
        assert_eq!(response["allowed"], false);
        assert_eq!(response.get("patch"), None);
        let message = response["status"]["message"].as_str().unwrap();
        assert!(message.contains(expected), "{message}");
    }
}

#[test]
fn a_body_that_is_no_review_is_refused() {
    let former = POD_CREATE.replace("admission.k8s.io/v1", "admission.k8s.io/v1beta1");
    for body in ["", "{}", "[]", r#"{"apiVersion":"admission.k8s.io/v1"}"#, &former, &POD_CREATE[1..]] {
        assert_eq!(super::review(body.as_bytes()), Err(Malformed), "{body}");
    }
}
