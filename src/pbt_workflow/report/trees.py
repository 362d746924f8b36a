"""A dialogue tree drawn as node-link SVG, for a page whose style sheet knows its classes."""

from markupsafe import Markup, escape

CARD_WIDTH, CARD_HEIGHT = 226, 66
GAP_X, GAP_Y = 38, 12
HEADER, MARGIN = 28, 4
ANSWER_CHARACTERS, CAPTION_CHARACTERS = 22, 30

STATES = {True: ("right", "✓", "correct"), False: ("wrong", "✗", "not correct")}
UNSTATED = ("unstated", "–", "no answer stated")


def shorten(text: str, length: int) -> str:
    """`text` on one line, cut to `length` characters with an ellipsis."""
    text = " ".join(text.split())
    return text if len(text) <= length else text[: length - 1] + "…"


def state(node: dict) -> tuple[str, str, str]:
    """CSS class, sign and words for a turn's answer: correct, not correct, or not stated."""
    return UNSTATED if node["belief"] is None else STATES[node["correct"]]


def draw_tree(nodes: list[dict], label: str) -> Markup:
    """One tree from left to right: a card per turn, columns by depth.

    Args:
        nodes: the rows of one tree of a `scored` table. A turn whose parent is not among them
            is drawn without an edge.
        label: the picture's accessible name.

    Returns:
        SVG markup; all text of the nodes is escaped.
    """
    nodes = sorted(nodes, key=lambda node: (node["depth"], node["node_id"]))
    rows = _rows(nodes)
    places = {
        node["node_id"]: (
            MARGIN + node["depth"] * (CARD_WIDTH + GAP_X),
            HEADER + rows[node["node_id"]] * (CARD_HEIGHT + GAP_Y),
        )
        for node in nodes
    }
    width = max(x for x, _ in places.values()) + CARD_WIDTH + MARGIN
    height = max(y for _, y in places.values()) + CARD_HEIGHT + MARGIN
    parts = [
        _edge(places[n["parent_id"]], places[n["node_id"]])
        for n in nodes
        if n["parent_id"] in places
    ]
    parts += [_heading(depth) for depth in sorted({node["depth"] for node in nodes})]
    parts += [_card(node, *places[node["node_id"]]) for node in nodes]
    opening = Markup(
        '<svg class="tree" role="img" aria-label="{}" viewBox="0 0 {:.0f} {:.0f}" '
        'width="{:.0f}" height="{:.0f}">'
    ).format(label, width, height, width, height)
    return opening + Markup("\n").join(parts) + Markup("</svg>")


def _rows(nodes: list[dict]) -> dict[int, float]:
    """Vertical places in units of cards: leaves one below the other, parents amid children."""
    known = {node["node_id"] for node in nodes}
    children: dict[int, list[int]] = {}
    for node in nodes:
        parent = node["parent_id"] if node["parent_id"] in known else -1
        children.setdefault(parent, []).append(node["node_id"])
    rows: dict[int, float] = {}
    leaves = 0

    def place(node_id: int) -> float:
        nonlocal leaves
        below = [place(child) for child in children.get(node_id, [])]
        if not below:
            rows[node_id] = leaves
            leaves += 1
        else:
            rows[node_id] = (below[0] + below[-1]) / 2
        return rows[node_id]

    for root in children.get(-1, []):
        place(root)
    return rows


def _edge(parent: tuple[float, float], child: tuple[float, float]) -> Markup:
    x0, y0 = parent[0] + CARD_WIDTH, parent[1] + CARD_HEIGHT / 2
    x1, y1 = child[0], child[1] + CARD_HEIGHT / 2
    bend = (x0 + x1) / 2
    return Markup('<path class="edge" d="M{},{} C{},{} {},{} {},{}"/>').format(
        x0, y0, bend, y0, bend, y1, x1, y1
    )


def _heading(depth: int) -> Markup:
    x = MARGIN + depth * (CARD_WIDTH + GAP_X)
    agent = "ab"[depth % 2]
    return Markup('<text class="column" x="{}" y="16">Turn {} · agent {}</text>').format(
        x, depth + 1, agent
    )


def _card(node: dict, x: float, y: float) -> Markup:
    css, sign, words = state(node)
    belief = "no answer" if node["belief"] is None else node["belief"]
    title = escape(
        f"Node {node['node_id']} · turn {node['depth'] + 1} · agent {node['agent']} · "
        f"{node['role']}\nAnswer: {belief} ({words}) · score {node['score']}\n\n{node['text']}"
    )
    caption = shorten(f"#{node['node_id']} · {node['agent']} · {node['role']}", CAPTION_CHARACTERS)
    ended = " · ended" if node["ended"] else ""
    # A nested svg clips what is too wide for its card.
    return Markup(
        '<svg class="card {css}" x="{x}" y="{y:.1f}" width="{w}" height="{h}">'
        "<title>{title}</title>"
        '<rect x="1" y="1" width="{rw}" height="{rh}" rx="7"/>'
        '<rect class="band" x="1" y="1" width="5" height="{rh}" rx="2"/>'
        '<text class="caption" x="14" y="19">{caption}</text>'
        '<text class="answer" x="14" y="39"><tspan class="sign">{sign}</tspan> {answer}</text>'
        '<text class="caption" x="14" y="56">score {score}{ended}</text></svg>'
    ).format(
        css=css,
        x=x,
        y=y,
        w=CARD_WIDTH,
        h=CARD_HEIGHT,
        rw=CARD_WIDTH - 2,
        rh=CARD_HEIGHT - 2,
        title=title,
        caption=caption,
        sign=sign,
        answer=shorten(belief, ANSWER_CHARACTERS),
        score=node["score"],
        ended=ended,
    )
