"""A foreign client: it knows the daemon's API by server reflection alone, from Debian's python3-grpcio and
python3-protobuf, without generated code.

Usage: reflect.py SOCKET NETNS PEER_IP

Prints one JSON document of what it saw, for the test that runs it to judge. A failed call is noted with its code, its
message and the field violations of its google.rpc.BadRequest.
"""

import json
import sys

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool, json_format, message_factory

TIMEOUT = 20
TYPE = descriptor_pb2.FieldDescriptorProto


def message_class(pool, name):
    """The class of a message, whatever this version of protobuf calls the way to it."""
    descriptor = pool.FindMessageTypeByName(name)
    if hasattr(message_factory, "GetMessageClass"):
        return message_factory.GetMessageClass(descriptor)
    return message_factory.MessageFactory(pool).GetPrototype(descriptor)


def define(file, name, fields):
    """Adds a message of (name, number, type, repeated) to a file; a type is a scalar's or a message's name."""
    message = file.message_type.add(name=name)
    for field, number, kind, repeated in fields:
        added = message.field.add(name=field, number=number)
        added.label = TYPE.LABEL_REPEATED if repeated else TYPE.LABEL_OPTIONAL
        if isinstance(kind, str):
            added.type, added.type_name = TYPE.TYPE_MESSAGE, kind
        else:
            added.type = kind


def reflection_file(package):
    """The part of grpc.reflection that is used here."""
    file = descriptor_pb2.FileDescriptorProto(name=package + ".proto", package=package, syntax="proto3")
    define(file, "ServerReflectionRequest", [
        ("file_by_filename", 3, TYPE.TYPE_STRING, False),
        ("file_containing_symbol", 4, TYPE.TYPE_STRING, False),
        ("list_services", 7, TYPE.TYPE_STRING, False),
    ])
    # One of them is meant by its presence, even where it is empty.
    request = file.message_type[0]
    request.oneof_decl.add(name="message_request")
    for field in request.field:
        field.oneof_index = 0
    define(file, "FileDescriptorResponse", [("file_descriptor_proto", 1, TYPE.TYPE_BYTES, True)])
    define(file, "ServiceResponse", [("name", 1, TYPE.TYPE_STRING, False)])
    define(file, "ListServiceResponse", [("service", 1, f".{package}.ServiceResponse", True)])
    define(file, "ErrorResponse", [
        ("error_code", 1, TYPE.TYPE_INT32, False),
        ("error_message", 2, TYPE.TYPE_STRING, False),
    ])
    define(file, "ServerReflectionResponse", [
        ("file_descriptor_response", 4, f".{package}.FileDescriptorResponse", False),
        ("list_services_response", 6, f".{package}.ListServiceResponse", False),
        ("error_response", 7, f".{package}.ErrorResponse", False),
    ])
    return file


def rpc_file():
    """google.rpc.Status and google.rpc.BadRequest, which error details come in."""
    file = descriptor_pb2.FileDescriptorProto(name="rpc.proto", package="google.rpc", syntax="proto3")
    define(file, "Any", [("type_url", 1, TYPE.TYPE_STRING, False), ("value", 2, TYPE.TYPE_BYTES, False)])
    define(file, "Status", [
        ("code", 1, TYPE.TYPE_INT32, False),
        ("message", 2, TYPE.TYPE_STRING, False),
        ("details", 3, ".google.rpc.Any", True),
    ])
    define(file, "FieldViolation", [
        ("field", 1, TYPE.TYPE_STRING, False),
        ("description", 2, TYPE.TYPE_STRING, False),
    ])
    define(file, "BadRequest", [("field_violations", 1, ".google.rpc.FieldViolation", True)])
    return file


class Reflection:
    """One version of the reflection service."""

    def __init__(self, channel, package):
        pool = descriptor_pool.DescriptorPool()
        pool.Add(reflection_file(package))
        self.request = message_class(pool, f"{package}.ServerReflectionRequest")
        response = message_class(pool, f"{package}.ServerReflectionResponse")
        self.call = channel.stream_stream(
            f"/{package}.ServerReflection/ServerReflectionInfo",
            request_serializer=self.request.SerializeToString,
            response_deserializer=response.FromString,
        )

    def ask(self, **question):
        return next(iter(self.call(iter([self.request(**question)]), timeout=TIMEOUT)))

    def services(self):
        answer = self.ask(list_services="")
        return sorted(service.name for service in answer.list_services_response.service)

    def files(self, symbol):
        """The file that defines a symbol and all that it needs, by name. A server may send no more than it was asked for."""
        files = self.found(file_containing_symbol=symbol)
        while True:
            needed = {name for file in files.values() for name in file.dependency} - files.keys()
            if not needed:
                return files
            files.update(self.found(file_by_filename=needed.pop()))

    def found(self, **question):
        answer = self.ask(**question)
        if answer.HasField("error_response"):
            raise RuntimeError(f"{question}: {answer.error_response.error_message}")
        files = map(descriptor_pb2.FileDescriptorProto.FromString,
                    answer.file_descriptor_response.file_descriptor_proto)
        return {file.name: file for file in files}


def add_files(pool, files):
    """Adds files to a pool, each after those that it imports."""
    added = set()

    def add(name):
        if name in added:
            return
        added.add(name)
        for dependency in files[name].dependency:
            add(dependency)
        pool.Add(files[name])

    for name in files:
        add(name)


class Api:
    """Every call of the services, with requests and answers as plain values."""

    def __init__(self, channel, reflection, services):
        self.channel = channel
        self.pool = descriptor_pool.DescriptorPool()
        files = {}
        for service in services:
            files.update(reflection.files(service))
        add_files(self.pool, files)
        self.methods = {}
        for service in services:
            proto = descriptor_pb2.ServiceDescriptorProto()
            self.pool.FindServiceByName(service).CopyToProto(proto)
            for method in proto.method:
                self.methods[method.name] = (f"/{service}/{method.name}", method)

    def start(self, name, /, request):
        path, method = self.methods[name]
        message = json_format.ParseDict(request, message_class(self.pool, method.input_type.lstrip("."))())
        kind = self.channel.unary_stream if method.server_streaming else self.channel.unary_unary
        answer = message_class(self.pool, method.output_type.lstrip("."))
        call = kind(path, request_serializer=type(message).SerializeToString,
                    response_deserializer=answer.FromString)
        return call(message, timeout=TIMEOUT)

    def call(self, name, /, **request):
        return json_format.MessageToDict(self.start(name, request))

    def watch(self, name, /, **request):
        for answer in self.start(name, request):
            yield json_format.MessageToDict(answer)


def failure(error, rpc):
    """What a failed call says, with the details of its trailers."""
    violations = []
    for key, value in error.trailing_metadata() or ():
        if key != "grpc-status-details-bin":
            continue
        status = message_class(rpc, "google.rpc.Status").FromString(value)
        assert status.code == error.code().value[0], "the details are those of another error"
        for detail in status.details:
            if detail.type_url == "type.googleapis.com/google.rpc.BadRequest":
                request = message_class(rpc, "google.rpc.BadRequest").FromString(detail.value)
                violations += [[v.field, v.description] for v in request.field_violations]
    return {"code": error.code().name, "message": error.details(), "violations": violations}


def spec(netns, peer, **changes):
    plain = {
        "duration": "60s",
        "target": {"netns": netns},
        "peers": [{"ip": peer}],
        "action": {"partition": {}},
    }
    plain.update(changes)
    return {key: value for key, value in plain.items() if value is not None}


def bad_requests(netns, peer):
    """Requests that must be refused, by a name for each."""
    def apply(**changes):
        return "ApplyFault", {"metadata": {"name": "bad"}, "spec": spec(netns, peer, **changes)}

    return {
        "no duration": apply(duration=None),
        "endless": apply(duration="999999s"),
        "percent": apply(action={"drop": {"percent": 101}}),
        "jitter": apply(action={"delay": {"latency": "0.010s", "jitter": "0.020s"}}),
        "cidr": apply(peers=[{"cidr": "10.0.0.0/33"}]),
        "except": apply(peers=[{"cidr": "10.0.0.0/8", "except": ["192.168.0.0/16"]}]),
        "port": apply(ports=[{"port": 0}]),
        "no action": apply(action=None),
        "several": apply(duration=None, action={"drop": {"percent": -1}}),
        "no name": ("ApplyFault", {"spec": spec(netns, peer)}),
        "preview": ("PreviewFault", {"metadata": {"name": "bad"}, "spec": spec(netns, peer, target=None)}),
        "get unknown": ("GetFault", {"name": "nobody"}),
        "delete unknown": ("DeleteFault", {"name": "nobody"}),
        "get nothing": ("GetFault", {}),
    }


def main():
    socket, netns, peer = sys.argv[1:]
    rpc = descriptor_pool.DescriptorPool()
    rpc.Add(rpc_file())
    seen = {}
    with grpc.insecure_channel(f"unix:{socket}") as channel:
        versions = {version: Reflection(channel, f"grpc.reflection.{version}") for version in ("v1", "v1alpha")}
        seen["services"] = {version: reflection.services() for version, reflection in versions.items()}
        own = [name for name in seen["services"]["v1"] if name.startswith("sabot.v1.")]
        api = Api(channel, versions["v1"], own + ["grpc.health.v1.Health"])
        seen["older"] = sorted(Api(channel, versions["v1alpha"], own).methods)
        seen["methods"] = sorted(api.methods)

        def attempt(name, request):
            try:
                return api.call(name, **request)
            except grpc.RpcError as error:
                return failure(error, rpc)

        seen["health"] = {name: attempt("Check", {"service": name}) for name in ["", *own, "nobody"]}
        seen["node"] = api.call("GetNode")
        fault = {"metadata": {"name": "cut", "namespace": "foreign"}, "spec": spec(netns, peer)}
        seen["preview"] = api.call("PreviewFault", **fault)
        seen["before"] = api.call("ListFaults")
        changes = api.watch("WatchFaults", namespace="foreign", includeCounters=True)
        seen["changes"] = [next(changes)]
        seen["applied"] = api.call("ApplyFault", wait="10s", **fault)
        seen["again"] = api.call("ApplyFault", wait="10s", **fault)
        seen["listed"] = api.call("ListFaults", namespace="foreign", includeCounters=True)
        seen["got"] = api.call("GetFault", namespace="foreign", name="cut")
        seen["errors"] = {name: attempt(*request) for name, request in bad_requests(netns, peer).items()}
        seen["deleted"] = api.call("DeleteFault", namespace="foreign", name="cut")
        for change in changes:
            seen["changes"].append(change)
            if change["change"] == "CHANGE_DELETED":
                break
        seen["after"] = api.call("ListFaults", activeOnly=True)
    json.dump(seen, sys.stdout)


if __name__ == "__main__":
    main()
