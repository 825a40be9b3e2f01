from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from _parts import needs_module
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.embeddings import DeterministicFakeEmbedding
from langchain_core.globals import set_llm_cache
from langchain_core.language_models.fake_chat_models import GenericFakeChatModel
from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    HumanMessage,
    SystemMessage,
    ToolMessage,
    trim_messages,
)
from langchain_core.output_parsers import StrOutputParser
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult, Generation
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import RunnablePassthrough
from langchain_core.vectorstores import InMemoryVectorStore
from pydantic import BaseModel

import perfkit
from perfkit.integrations.langchain import ChatPerfkit, PerfkitCache
from perfkit.testing import FaultServer, faults
from perfkit.testing.llm import LlamaServer


@pytest.fixture(autouse=True)
def _configured(fault: FaultServer) -> None:
    perfkit.configure(providers={"fake": {"kind": "openai", "base_url": fault.base_url, "api_key": "k"}})


def test_a_chain_runs_on_it_unchanged() -> None:
    chain = ChatPromptTemplate.from_messages([("system", "Be brief."), ("human", "{q}")]) | ChatPerfkit(model="m")
    answer = chain.invoke({"q": "hello"})
    assert isinstance(answer, AIMessage)
    assert answer.text == "echo: hello"
    assert answer.usage_metadata is not None
    assert answer.usage_metadata["input_tokens"] > 0
    assert (answer.response_metadata["provider"], answer.response_metadata["cached"]) == ("fake", None)
    assert (chain | StrOutputParser()).batch([{"q": "a"}, {"q": "b"}]) == ["echo: a", "echo: b"]


class Listening(BaseCallbackHandler):
    def __init__(self) -> None:
        self.tokens: list[str] = []

    def on_llm_new_token(self, token: Any, **_: Any) -> None:
        self.tokens.append(token)


def test_a_stream_carries_the_text_and_then_the_usage() -> None:
    told = Listening()
    chunks = list(ChatPerfkit(model="m").stream("one two three", config={"callbacks": [told]}))
    assert "".join(told.tokens) == "echo: one two three"
    assert "".join(chunk.text for chunk in chunks) == "echo: one two three"
    assert len(chunks) > 2
    whole = sum(chunks[1:], chunks[0])
    assert whole.usage_metadata is not None
    assert whole.usage_metadata["output_tokens"] > 0


def test_fallback_and_answers_from_the_cache_are_those_of_perfkit(fault: FaultServer) -> None:
    perfkit.configure(
        providers={"spare": {"kind": "openai", "base_url": fault.base_url, "api_key": "k", "priority": 2}},
        router={"strategy": "priority"},
    )
    fault.behave(faults.status(500), then="ok")
    model = ChatPerfkit(model="m", temperature=0, user="ann")
    assert model.invoke("hello").text == "echo: hello"
    again = model.invoke("hello")
    assert (again.response_metadata["cached"], again.response_metadata["cost"]) == ("exact", 0.0)
    assert fault.stats()["requests"] == 2


@pytest.fixture
def caller() -> Iterator[tuple[str, list[Any]]]:
    """Serve a model that calls the first tool it is given, twice: once with broken arguments; then it tells."""
    asked: list[Any] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            asked.append(request)
            name = request["tools"][0]["function"]["name"] if "tools" in request else ""
            calls = [
                {"id": f"c{place}", "type": "function", "function": {"name": name, "arguments": arguments}}
                for place, arguments in enumerate(['{"city": "Rome"}', '{"city": "Ro'])
            ]
            message = {"role": "assistant", "content": None, "tool_calls": calls}
            if request["messages"][-1]["role"] == "tool":
                message = {"role": "assistant", "content": f"{request['messages'][-1]['content']}, then"}
            if "response_format" in request:
                message = {"role": "assistant", "content": '{"city": "Rome"}'}
            usage = {"prompt_tokens": 5, "completion_tokens": 7, "total_tokens": 12}
            reply = {"id": "1", "model": "m", "usage": usage}
            body = json.dumps({**reply, "choices": [{"message": message, "finish_reason": "tool_calls"}]}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/v1", asked
        server.shutdown()


def test_tools_go_out_and_come_back(caller: tuple[str, list[Any]]) -> None:
    def weather(city: str) -> str:
        """Tell the weather.

        Args:
            city: where.
        """
        return city

    url, asked = caller
    perfkit.configure(providers={"caller": {"kind": "openai", "base_url": url, "api_key": "k"}})
    model = ChatPerfkit(model="m", provider="caller").bind_tools([weather], tool_choice="weather")
    answer = model.invoke("Rome?")
    assert asked[0]["tool_choice"] == {"type": "function", "function": {"name": "weather"}}
    assert [(call["name"], call["args"], call["id"]) for call in answer.tool_calls] == [
        ("weather", {"city": "Rome"}, "c0")
    ]
    assert [call["id"] for call in answer.invalid_tool_calls] == ["c1"]
    model.invoke([SystemMessage("s"), HumanMessage("Rome?"), answer, ToolMessage("sunny", tool_call_id="c0")])
    assert [message["role"] for message in asked[1]["messages"]] == ["system", "user", "assistant", "tool"]
    assert asked[1]["messages"][2]["tool_calls"][0]["id"] == asked[1]["messages"][3]["tool_call_id"] == "c0"


def test_retrieval_code_runs_on_it_unchanged_with_the_real_model(llm: LlamaServer) -> None:
    perfkit.configure(providers={"local": {"kind": "openai", "base_url": llm.base_url, "api_key": "k"}})
    texts = ["Returns are free.", "Shipping takes two days."]
    store = InMemoryVectorStore.from_texts(texts, DeterministicFakeEmbedding(size=32))
    prompt = ChatPromptTemplate.from_template("Answer from {context} only: {question}")
    model = ChatPerfkit(model="tiny", provider="local", temperature=0, max_tokens=8, user="ann")
    found = {"context": store.as_retriever(search_kwargs={"k": 1}), "question": RunnablePassthrough()}
    chain = found | prompt | model
    first, again = chain.invoke("Are returns free?"), chain.invoke("Are returns free?")
    assert (first.response_metadata["cached"], again.response_metadata["cached"]) == (None, "exact")
    assert again.text == first.text
    assert first.usage_metadata is not None
    assert first.usage_metadata["output_tokens"] <= 8
    assert "".join(chunk.text for chunk in chain.stream("How long does shipping take?"))


def test_a_graph_with_tools_runs_on_it_unchanged(caller: tuple[str, list[Any]]) -> None:
    needs_module("langgraph")
    from langgraph.graph import START, MessagesState, StateGraph
    from langgraph.prebuilt import ToolNode, tools_condition

    def weather(city: str) -> str:
        """Tell the weather of a city."""
        return f"sunny in {city}"

    url, asked = caller
    perfkit.configure(providers={"caller": {"kind": "openai", "base_url": url, "api_key": "k"}})
    model = ChatPerfkit(model="m", provider="caller").bind_tools([weather])
    graph: Any = StateGraph(MessagesState)
    graph.add_node("model", lambda state: {"messages": [model.invoke(state["messages"])]})
    graph.add_node("tools", ToolNode([weather]))
    graph.add_edge(START, "model")
    graph.add_conditional_edges("model", tools_condition)
    graph.add_edge("tools", "model")
    messages = graph.compile().invoke({"messages": [("user", "Rome?")]})["messages"]
    assert [message.type for message in messages] == ["human", "ai", "tool", "ai"]
    assert messages[2].text == "sunny in Rome"
    assert messages[3].text == "sunny in Rome, then"
    assert asked[1]["messages"][-1]["role"] == "tool"
    assert perfkit.tracker.get_stats("agent_response_time", tags={"agent": "langchain"})["count"] == 2


def test_the_cache_serves_other_models_and_keeps_users_apart() -> None:
    cache = PerfkitCache()
    set_llm_cache(cache)
    try:
        model = GenericFakeChatModel(messages=iter([AIMessage(str(n)) for n in range(9)]))
        with perfkit.scope(user="ann"):
            assert [model.invoke("q").text for _ in range(2)] == ["0", "0"]
        with perfkit.scope(user="bob"):
            assert model.invoke("q").text == "1"
        assert [model.invoke("q").text for _ in range(2)] == ["2", "2"]
        perfkit.cache.set("mine", 1)
        cache.clear()
        assert perfkit.cache.get("mine") == 1
        assert model.invoke("q").text == "3"
        with perfkit.scope(tenant="acme", user="ann"):
            assert model.invoke("q").text == "4"
        with perfkit.scope(tenant="other", user="ann"):
            assert model.invoke("q").text == "5"
    finally:
        set_llm_cache(None)


NOW = {"type": "function", "function": {"name": "now"}}
CHOICES = [(word, word) for word in ("auto", "none", "required")]


@pytest.mark.parametrize(
    ("choice", "sent"), [*CHOICES, ("any", "required"), (True, "required"), (False, None), ("now", NOW), (NOW, NOW)]
)
def test_tools_may_be_left_to_the_model_or_required(choice: Any, sent: Any) -> None:
    bound: Any = ChatPerfkit(model="m").bind_tools(
        [{"name": "now", "description": "d", "parameters": {}}], tool_choice=choice, strict=True
    )
    assert bound.kwargs.get("tool_choice") == sent
    assert (bound.kwargs["tools"][0]["function"]["strict"], "strict" in bound.kwargs) == (True, False)


class Place(BaseModel):
    """Where it is."""

    city: str


@pytest.mark.parametrize(
    ("method", "asked_for"),
    [("function_calling", "tools"), ("json_schema", "response_format"), ("json_mode", "response_format")],
)
def test_answers_come_in_the_form_that_is_asked_for(caller: tuple[str, list[Any]], method: Any, asked_for: str) -> None:
    url, asked = caller
    perfkit.configure(providers={"caller": {"kind": "openai", "base_url": url, "api_key": "k"}})
    model = ChatPerfkit(model="m", provider="caller")
    assert model.with_structured_output(Place, method=method).invoke("Where?") == Place(city="Rome")
    told = model.with_structured_output(Place.model_json_schema(), method=method, include_raw=True).invoke("Where?")
    assert (told["parsed"], told["parsing_error"]) == ({"city": "Rome"}, None)
    assert all(asked_for in request for request in asked)
    with pytest.raises(ValueError, match="not 'yaml'"):
        model.with_structured_output(Place, method="yaml")  # type: ignore[arg-type]


def test_what_it_cannot_heed_is_refused_and_what_is_configured_elsewhere_is_told() -> None:
    with pytest.raises(ValueError, match="did you mean 'temperature'") as refused:
        ChatPerfkit(model="m", temprature="sk-1")  # type: ignore[call-arg]
    assert "sk-1" not in str(refused.value)
    with pytest.warns(UserWarning, match="api_key is ignored"):
        assert "sk-1" not in repr(ChatPerfkit(model="m", api_key="sk-1"))  # type: ignore[call-arg]


def test_further_parameters_reach_the_provider(caller: tuple[str, list[Any]]) -> None:
    url, asked = caller
    perfkit.configure(providers={"caller": {"kind": "openai", "base_url": url, "api_key": "k"}})
    model = ChatPerfkit(model="m", provider="caller", stop=["."], model_kwargs={"seed": 7})
    model.invoke("hi", top_p=0.5)
    assert (asked[0]["stop"], asked[0]["seed"], asked[0]["top_p"]) == (["."], 7, 0.5)


def test_conversations_can_be_cut_by_the_tokens_of_the_model() -> None:
    said: list[Any] = [HumanMessage("one two three"), AIMessage("four"), HumanMessage("five")]
    model = ChatPerfkit(model="gpt-4o")
    last = model.get_num_tokens_from_messages(said[-1:])
    assert trim_messages(said, max_tokens=last, token_counter=model) == said[-1:]
    assert model.get_num_tokens_from_messages(said, tools=[Place]) > model.get_num_tokens_from_messages(said) > last


class Meeting(ChatPerfkit):
    """A model that answers when all questions are there."""

    there: Any = None

    def _generate(self, *_: Any, **__: Any) -> ChatResult:
        self.there.wait(20)
        return ChatResult(generations=[ChatGeneration(message=AIMessage("met"))])


def test_asynchronous_calls_do_not_wait_for_the_few_threads_of_asyncio() -> None:
    async def ask() -> list[AIMessage]:
        model = Meeting(model="m", there=threading.Barrier(40))
        return await asyncio.gather(*(model.ainvoke("hi") for _ in range(40)))

    assert {answer.text for answer in asyncio.run(ask())} == {"met"}


class Endless(ChatPerfkit):
    """A model that does not stop talking; it notes when it is closed."""

    closed: Any = None
    kept: list[Any] = []  # else it would be closed by being forgotten

    def _stream(self, *_: Any, **__: Any) -> Any:
        self.kept.append(self._spoken())
        return self.kept[-1]

    def _spoken(self) -> Any:
        try:
            while True:
                yield ChatGenerationChunk(message=AIMessageChunk(content="and "))
        finally:
            self.closed.set()


def test_an_asynchronous_stream_that_is_cancelled_is_closed() -> None:
    closed = threading.Event()

    async def listen(heard: asyncio.Event) -> None:
        async for _ in Endless(model="m", closed=closed).astream("hi"):
            heard.set()

    async def leave() -> None:
        heard = asyncio.Event()
        task = asyncio.create_task(listen(heard))
        await heard.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(leave())
    assert closed.wait(10)


def test_asynchronous_calls_belong_to_the_scope_they_are_made_in() -> None:
    async def ask(user: str) -> list[Any]:
        model = ChatPerfkit(model="m", temperature=0)
        with perfkit.scope(user=user):
            answer, again = await model.ainvoke("hello"), await model.ainvoke("hello")
            return [answer.response_metadata["cached"], again.response_metadata["cached"]]

    async def both() -> list[Any]:
        return [await ask("ann"), await ask("bob")]

    assert asyncio.run(both()) == [[None, "exact"], [None, "exact"]]
    chunks = asyncio.run(_told(ChatPerfkit(model="m")))
    assert "".join(chunk.text for chunk in chunks) == "echo: one two"


async def _told(model: ChatPerfkit) -> list[Any]:
    return [chunk async for chunk in model.astream("one two")]


def test_the_cache_keeps_plain_generations_and_leaves_what_is_not_json() -> None:
    cache = PerfkitCache()
    cache.update("prompt", "model", [Generation(text="hi", generation_info={"n": 1})])
    assert cache.lookup("prompt", "model") == [Generation(text="hi", generation_info={"n": 1})]
    cache.update("other", "model", [Generation(text="hi", generation_info={"n": object()})])
    assert cache.lookup("other", "model") is None
