"""Reads and builds messages of the protocol with code that is not ours.

Standard input is a JSON list of tasks, standard output the list of their results:
{"read": {"side", "type", "data"}} gives a message, {"build": message} gives the data of a frame in
hexadecimal. Messages look as in `message.rs`: bytes are strings with one character per byte.

Tables come from the package a6pluginprotos as far as it has them. It is older than the response call,
`Rewrite.resp_headers`, `Rewrite.body` and the question for the response body: those go through the
flatbuffers package directly, by the number of the field.
"""

import json
import sys

import flatbuffers
from flatbuffers import number_types
from flatbuffers.table import Table

import A6.Err.Resp
import A6.ExtraInfo.Info
import A6.ExtraInfo.ReqBody
import A6.ExtraInfo.Req
import A6.ExtraInfo.Resp
import A6.ExtraInfo.Var
import A6.HTTPReqCall.Action
import A6.HTTPReqCall.Req
import A6.HTTPReqCall.Resp
import A6.HTTPReqCall.Rewrite
import A6.HTTPReqCall.Stop
import A6.PrepareConf.Req
import A6.PrepareConf.Resp
import A6.TextEntry as TextEntry

Err, PrepareConf, Call, ExtraInfo = A6.Err, A6.PrepareConf, A6.HTTPReqCall, A6.ExtraInfo
RESPONSE_BODY = 3  # ExtraInfo.Info.RespBody


# Reading


def text(data):
    return None if data is None else bytes(data).decode("latin-1")


def octets(table, field):
    """A vector of bytes, which the generated code reads one by one."""
    if getattr(table, field + "IsNone")():
        return None
    return text(bytes(getattr(table, field)(i) for i in range(getattr(table, field + "Length")())))


def entries(table, field):
    listed = (getattr(table, field)(i) for i in range(getattr(table, field + "Length")()))
    return [[text(entry.Name()), text(entry.Value())] for entry in listed]


class Fields:
    """A table read by the numbers of its fields."""

    def __init__(self, table):
        self.table = table

    @classmethod
    def root(cls, data):
        return cls(Table(data, flatbuffers.encode.Get(flatbuffers.packer.uoffset, data, 0)))

    def at(self, number):
        return self.table.Offset(4 + 2 * number)

    def scalar(self, number, flags):
        at = self.at(number)
        return self.table.Get(flags, self.table.Pos + at) if at else 0

    def octets(self, number):
        at = self.at(number)
        return text(self.table.String(self.table.Pos + at)) if at else None

    def entries(self, number):
        at = self.at(number)
        if not at:
            return []
        start, listed = self.table.Vector(at), []
        for i in range(self.table.VectorLen(at)):
            entry = TextEntry.TextEntry()
            entry.Init(self.table.Bytes, self.table.Indirect(start + 4 * i))
            listed.append([text(entry.Name()), text(entry.Value())])
        return listed


def read_error(data):
    return {"message": "error", "code": Err.Resp.Resp.GetRootAs(data).Code()}


def read_prepare(data):
    request = PrepareConf.Req.Req.GetRootAs(data)
    return {"message": "prepare", "conf": entries(request, "Conf"), "key": text(request.Key())}


def read_token(data):
    return {"message": "token", "conf_token": PrepareConf.Resp.Resp.GetRootAs(data).ConfToken()}


def read_request_call(data):
    request = Call.Req.Req.GetRootAs(data)
    return {
        "message": "request_call",
        "id": request.Id(),
        "src_ip": octets(request, "SrcIp"),
        "method": request.Method(),
        "path": text(request.Path()),
        "args": entries(request, "Args"),
        "headers": entries(request, "Headers"),
        "conf_token": request.ConfToken(),
    }


def read_request_answer(data):
    answer = Call.Resp.Resp.GetRootAs(data)
    kind, action = answer.ActionType(), answer.Action()
    if kind == Call.Action.Action.NONE:
        return {"message": "unchanged", "id": answer.Id()}
    if kind == Call.Action.Action.Stop:
        stop = Call.Stop.Stop()
        stop.Init(action.Bytes, action.Pos)
        return {
            "message": "stop",
            "id": answer.Id(),
            "status": stop.Status(),
            "headers": entries(stop, "Headers"),
            "body": octets(stop, "Body"),
        }
    rewrite = Call.Rewrite.Rewrite()
    rewrite.Init(action.Bytes, action.Pos)
    newer = Fields(action)
    return {
        "message": "rewrite",
        "id": answer.Id(),
        "path": text(rewrite.Path()),
        "headers": entries(rewrite, "Headers"),
        "args": entries(rewrite, "Args"),
        "resp_headers": newer.entries(3),
        "body": newer.octets(4),
    }


def read_question(data):
    question = ExtraInfo.Req.Req.GetRootAs(data)
    kind, info = question.InfoType(), question.Info()
    if kind == ExtraInfo.Info.Info.Var:
        var = ExtraInfo.Var.Var()
        var.Init(info.Bytes, info.Pos)
        return {"message": "ask_variable", "name": text(var.Name())}
    known = {ExtraInfo.Info.Info.ReqBody: "ask_request_body", RESPONSE_BODY: "ask_response_body"}
    return {"message": known[kind]}


def read_info(data):
    return {"message": "info", "result": octets(ExtraInfo.Resp.Resp.GetRootAs(data), "Result")}


def read_response_call(data):
    fields = Fields.root(data)
    return {
        "message": "response_call",
        "id": fields.scalar(0, number_types.Uint32Flags),
        "status": fields.scalar(1, number_types.Uint16Flags),
        "headers": fields.entries(2),
        "conf_token": fields.scalar(3, number_types.Uint32Flags),
    }


def read_response_answer(data):
    fields = Fields.root(data)
    return {
        "message": "response_answer",
        "id": fields.scalar(0, number_types.Uint32Flags),
        "status": fields.scalar(1, number_types.Uint16Flags),
        "headers": fields.entries(2),
        "body": fields.octets(3),
    }


READ = {
    (0, "runner"): read_error,
    (1, "gateway"): read_prepare,
    (1, "runner"): read_token,
    (2, "gateway"): read_request_call,
    (2, "runner"): read_request_answer,
    (3, "gateway"): read_info,
    (3, "runner"): read_question,
    (4, "gateway"): read_response_call,
    (4, "runner"): read_response_answer,
}


# Building


class Parts:
    """The parts of a message, which have to be there before its tables."""

    def __init__(self):
        self.builder = flatbuffers.Builder()

    def string(self, value):
        return None if value is None else self.builder.CreateString(value.encode("latin-1"))

    def octets(self, value):
        return None if value is None else self.builder.CreateByteVector(value.encode("latin-1"))

    def entries(self, pairs):
        built = []
        for name, value in pairs:
            name, value = self.string(name), self.string(value)
            TextEntry.Start(self.builder)
            TextEntry.AddName(self.builder, name)
            if value is not None:
                TextEntry.AddValue(self.builder, value)
            built.append(TextEntry.End(self.builder))
        self.builder.StartVector(4, len(built), 4)
        for entry in reversed(built):
            self.builder.PrependUOffsetTRelative(entry)
        return self.builder.EndVector()

    def table(self, module, **fields):
        """A table of the package; fields that are None are left out."""
        module.Start(self.builder)
        for name, value in fields.items():
            if value is not None:
                getattr(module, "Add" + name)(self.builder, value)
        return module.End(self.builder)

    def numbered(self, scalars, offsets, count):
        """A table that the package does not have."""
        self.builder.StartObject(count)
        for number, (prepend, value) in scalars.items():
            prepend(number, value, 0)
        for number, value in offsets.items():
            if value is not None:
                self.builder.PrependUOffsetTRelativeSlot(number, value, 0)
        return self.builder.EndObject()

    def finish(self, root):
        self.builder.Finish(root)
        return bytes(self.builder.Output())


def build(message):
    kind, parts = message["message"], Parts()
    u32, u16 = parts.builder.PrependUint32Slot, parts.builder.PrependUint16Slot
    m = message.get
    if kind == "error":
        root = parts.table(Err.Resp, Code=m("code"))
    elif kind == "prepare":
        root = parts.table(PrepareConf.Req, Conf=parts.entries(m("conf")), Key=parts.string(m("key")))
    elif kind == "token":
        root = parts.table(PrepareConf.Resp, ConfToken=m("conf_token"))
    elif kind == "request_call":
        root = parts.table(
            Call.Req,
            Id=m("id"),
            SrcIp=parts.octets(m("src_ip")),
            Method=m("method"),
            Path=parts.string(m("path")),
            Args=parts.entries(m("args")),
            Headers=parts.entries(m("headers")),
            ConfToken=m("conf_token"),
        )
    elif kind == "unchanged":
        root = parts.table(Call.Resp, Id=m("id"))
    elif kind == "stop":
        action = parts.table(
            Call.Stop, Status=m("status"), Headers=parts.entries(m("headers")), Body=parts.octets(m("body"))
        )
        root = parts.table(Call.Resp, Id=m("id"), ActionType=Call.Action.Action.Stop, Action=action)
    elif kind == "rewrite":
        fields = {
            0: parts.string(m("path")),
            1: parts.entries(m("headers")),
            2: parts.entries(m("args")),
            3: parts.entries(m("resp_headers")),
            4: parts.octets(m("body")),
        }
        action = parts.numbered({}, fields, 5)
        root = parts.table(Call.Resp, Id=m("id"), ActionType=Call.Action.Action.Rewrite, Action=action)
    elif kind == "ask_variable":
        var = parts.table(ExtraInfo.Var, Name=parts.string(m("name")))
        root = parts.table(ExtraInfo.Req, InfoType=ExtraInfo.Info.Info.Var, Info=var)
    elif kind == "ask_request_body":
        body = parts.table(ExtraInfo.ReqBody)
        root = parts.table(ExtraInfo.Req, InfoType=ExtraInfo.Info.Info.ReqBody, Info=body)
    elif kind == "ask_response_body":
        body = parts.numbered({}, {}, 0)
        root = parts.table(ExtraInfo.Req, InfoType=RESPONSE_BODY, Info=body)
    elif kind == "info":
        root = parts.table(ExtraInfo.Resp, Result=parts.octets(m("result")))
    elif kind == "response_call":
        headers = parts.entries(m("headers"))
        scalars = {0: (u32, m("id")), 1: (u16, m("status")), 3: (u32, m("conf_token"))}
        root = parts.numbered(scalars, {2: headers}, 4)
    elif kind == "response_answer":
        headers, body = parts.entries(m("headers")), parts.octets(m("body"))
        root = parts.numbered({0: (u32, m("id")), 1: (u16, m("status"))}, {2: headers, 3: body}, 4)
    else:
        raise ValueError(kind)
    return parts.finish(root).hex()


def perform(task):
    if "build" in task:
        return build(task["build"])
    frame = task["read"]
    return READ[frame["type"], frame["side"]](bytes.fromhex(frame["data"]))


if __name__ == "__main__":
    json.dump([perform(task) for task in json.load(sys.stdin)], sys.stdout)
