#!/usr/bin/env python3
"""Makes the weights of the example: logistic regression over hashed trigrams, by plain gradient descent.

    guests/examples/languages/train.py        # writes package/model.safetensors and package/labels.json
"""

import json, math, pathlib, random, re, struct

FEATURES, ROUNDS, RATE = 1024, 60, 4.0

TEXTS = {
    "de": """Das Gesetz gilt für alle, und niemand steht darüber. Am Morgen ging der Fuchs durch den verschneiten Wald und
        suchte etwas zu essen. Wir treffen uns nächste Woche auf dem Marktplatz vor der alten Kirche. Kannst du mir bitte sagen,
        wie spät es ist? Die Kinder spielen draußen im Garten, obwohl es regnet. Er hat das Buch gelesen, aber nicht verstanden.
        Ich möchte gerne einen Kaffee mit Milch und ein Stück Kuchen. Zwischen den Bergen liegt ein kleiner See, dessen Wasser
        sehr kalt ist. Warum hast du gestern nicht angerufen? Die Maschine arbeitet schneller, wenn sie nicht gestört wird.""",
    "en": """The law is the same for everybody, and nobody stands above it. In the morning the fox walked through the snowy forest
        and looked for something to eat. We will meet next week in the market square in front of the old church. Could you please
        tell me what time it is? The children are playing outside in the garden although it is raining. He has read the book but
        did not understand it. I would like a coffee with milk and a piece of cake. Between the mountains lies a small lake whose
        water is very cold. Why did you not call yesterday? The machine works faster when it is not disturbed.""",
    "es": """La ley es igual para todos y nadie está por encima de ella. Por la mañana el zorro caminó por el bosque nevado y buscó
        algo de comer. Nos veremos la próxima semana en la plaza del mercado delante de la vieja iglesia. ¿Puedes decirme qué hora
        es, por favor? Los niños juegan fuera en el jardín aunque está lloviendo. Ha leído el libro pero no lo ha entendido.
        Quisiera un café con leche y un trozo de pastel. Entre las montañas hay un pequeño lago cuya agua está muy fría. ¿Por qué no
        llamaste ayer? La máquina trabaja más rápido cuando no la molestan.""",
    "fr": """La loi est la même pour tous, et personne n'est au-dessus d'elle. Le matin, le renard marchait dans la forêt enneigée et
        cherchait quelque chose à manger. Nous nous verrons la semaine prochaine sur la place du marché devant la vieille église.
        Peux-tu me dire quelle heure il est, s'il te plaît ? Les enfants jouent dehors dans le jardin bien qu'il pleuve. Il a lu le
        livre mais il ne l'a pas compris. Je voudrais un café au lait et un morceau de gâteau. Entre les montagnes se trouve un petit
        lac dont l'eau est très froide. Pourquoi n'as-tu pas appelé hier ? La machine travaille plus vite quand on ne la dérange pas.""",
    "is": """Lögin eru eins fyrir alla og enginn stendur ofar þeim. Um morguninn gekk refurinn um snævi þakinn skóginn og leitaði að
        einhverju að borða. Við hittumst í næstu viku á markaðstorginu fyrir framan gömlu kirkjuna. Geturðu vinsamlegast sagt mér hvað
        klukkan er? Börnin leika sér úti í garðinum þótt það rigni. Hann hefur lesið bókina en skildi hana ekki. Ég vil gjarnan kaffi með
        mjólk og kökusneið. Á milli fjallanna er lítið vatn og vatnið í því er mjög kalt. Af hverju hringdir þú ekki í gær? Vélin vinnur
        hraðar þegar hún er ekki trufluð.""",
}


def features(text):
    """As the guest counts them."""
    letters = " " + "".join(word.lower() + " " for word in re.findall(r"[^\W\d_]+", text))
    counts = {}
    for at in range(len(letters) - 2):
        value = 0x811C9DC5
        for byte in letters[at : at + 3].encode():
            value = (value ^ byte) * 0x01000193 % 2**32
        counts[value % FEATURES] = counts.get(value % FEATURES, 0) + 1
    length = math.sqrt(sum(count * count for count in counts.values())) or 1
    return {feature: count / length for feature, count in counts.items()}


def main():
    labels = sorted(TEXTS)
    examples = []
    for index, label in enumerate(labels):
        words = TEXTS[label].split()
        # Pieces of several lengths, so that short texts are known too.
        for length in [3, 6, 12, 25]:
            for start in range(0, len(words) - length + 1, 3):
                examples.append((features(" ".join(words[start : start + length])), index))
    weights = [[0.0] * FEATURES for _ in labels]
    bias = [0.0] * len(labels)
    chance = random.Random(1)
    for round in range(ROUNDS):
        chance.shuffle(examples)
        rate = RATE * (1 - round / ROUNDS)
        for text, label in examples:
            scores = [bias[i] + sum(weights[i][f] * x for f, x in text.items()) for i in range(len(labels))]
            highest = max(scores)
            powers = [math.exp(score - highest) for score in scores]
            for i in range(len(labels)):
                error = (i == label) - powers[i] / sum(powers)
                bias[i] += 0.01 * rate * error
                for f, x in text.items():
                    weights[i][f] += rate * error * x - 1e-5 * weights[i][f]
    data = struct.pack(f"<{len(labels) * FEATURES}f", *[w for row in weights for w in row])
    header = {
        "weight": {"dtype": "F32", "shape": [len(labels), FEATURES], "data_offsets": [0, len(data)]},
        "bias": {"dtype": "F32", "shape": [len(labels)], "data_offsets": [len(data), len(data) + 4 * len(labels)]},
    }
    data += struct.pack(f"<{len(labels)}f", *bias)
    header = json.dumps(header).encode()
    package = pathlib.Path(__file__).parent / "package"
    (package / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + data)
    (package / "labels.json").write_text(json.dumps(labels) + "\n")


main()
