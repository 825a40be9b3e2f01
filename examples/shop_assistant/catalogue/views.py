"""Pages of the shop. A page never waits for a description that fails: it shows the plain facts then."""

from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, render
from django.views.decorators.http import require_POST

import perfkit
from examples.shop_assistant.catalogue.models import Product

__all__ = ["ask", "index", "product"]

LONGEST = 300  # characters of a question
INSTRUCTIONS = "You help customers of a shop to choose, in two sentences, from these products alone:\n"


def index(request: HttpRequest) -> HttpResponse:
    return render(request, "catalogue/index.html", {"products": Product.objects.order_by("pk"), "longest": LONGEST})


def product(request: HttpRequest, number: int) -> HttpResponse:
    found = get_object_or_404(Product, pk=number)
    asked = f"Describe for the page of a shop, in two sentences: {found}"
    answer = perfkit.chat(asked, model="describe", max_tokens=48, agent="describe", fallback_response=found.facts)
    description = answer.text.strip() or found.facts
    return render(request, "catalogue/product.html", {"product": found, "description": description})


@require_POST
def ask(request: HttpRequest) -> HttpResponse:
    question = request.POST.get("question", "").strip()[:LONGEST] or "What do you have?"
    products = "\n".join(str(one) for one in Product.objects.order_by("pk"))  # the same prefix for everybody
    messages = [{"role": "system", "content": INSTRUCTIONS + products}, {"role": "user", "content": question}]
    try:
        answer = perfkit.chat(messages, temperature=0, max_tokens=64, agent="assistant")
    except perfkit.PerfkitError:
        told = {"question": question, "failure": "The assistant has no time right now. Please try again in a minute."}
        return render(request, "catalogue/answer.html", told, status=503)
    return render(request, "catalogue/answer.html", {"question": question, "answer": answer})
