"""The corpus of tiny-stories: short children's stories about known subjects, and one fixed answer for
everything else. It is generated from the templates below with a seeded generator, so that the same
seed gives the same text on every machine; nothing is downloaded.

A story is: an opening, a wish or a problem, an attempt, help, a turn, an ending. Each part has many
sentences; sentences of different parts share no run of five words, so that a story never repeats
itself.
"""

import random

# subject -> (kind of place, things it likes)
SUBJECTS = {
    "fox": "forest", "bear": "forest", "owl": "forest", "rabbit": "meadow", "mouse": "farm",
    "cat": "village", "dog": "village", "horse": "farm", "cow": "farm", "pig": "farm",
    "sheep": "farm", "goat": "mountain", "duck": "pond", "goose": "pond", "hen": "farm",
    "frog": "pond", "turtle": "pond", "fish": "sea", "whale": "sea", "dolphin": "sea",
    "crab": "sea", "seal": "sea", "penguin": "snow", "wolf": "forest", "deer": "forest",
    "squirrel": "forest", "hedgehog": "meadow", "badger": "forest", "beaver": "pond", "otter": "pond",
    "lion": "plain", "tiger": "jungle", "monkey": "jungle", "elephant": "plain", "giraffe": "plain",
    "zebra": "plain", "hippo": "plain", "camel": "desert", "snake": "desert", "lizard": "desert",
    "parrot": "jungle", "crow": "village", "sparrow": "village", "eagle": "mountain", "swan": "pond",
    "bee": "meadow", "ant": "meadow", "butterfly": "meadow", "spider": "village", "snail": "meadow",
    "ladybird": "meadow", "dragon": "mountain", "unicorn": "meadow", "giant": "mountain", "fairy": "forest",
    "wizard": "tower", "witch": "tower", "princess": "castle", "prince": "castle", "king": "castle",
    "queen": "castle", "knight": "castle", "pirate": "ship", "sailor": "ship", "robot": "town",
    "ghost": "tower", "mermaid": "sea", "farmer": "farm", "baker": "town", "gardener": "village",
    "boy": "village", "girl": "village", "kitten": "village", "puppy": "village", "pony": "farm",
    "moon": "sky", "star": "sky", "cloud": "sky", "snowman": "snow", "tree": "forest",
}

PLACES = {
    "forest": ["the quiet forest", "the old oak wood", "the green forest", "the dark pine wood"],
    "meadow": ["the wide meadow", "the flower meadow", "the sunny hill", "the long grass"],
    "farm": ["the little farm", "the red barn", "the apple farm", "the busy farm"],
    "village": ["the small village", "the sleepy village", "the garden behind the mill", "the market square"],
    "pond": ["the round pond", "the lily pond", "the slow river", "the reed lake"],
    "sea": ["the blue sea", "the deep bay", "the coral reef", "the sandy shore"],
    "snow": ["the white north", "the frozen lake", "the snowy hill", "the land of ice"],
    "plain": ["the golden plain", "the warm plain", "the wide river bend", "the dry grass land"],
    "jungle": ["the green jungle", "the rainy jungle", "the tall fig tree", "the hidden valley"],
    "desert": ["the hot desert", "the red sand", "the palm oasis", "the stony valley"],
    "mountain": ["the high mountain", "the grey cliffs", "the misty peak", "the cave above the clouds"],
    "tower": ["the crooked tower", "the tower on the hill", "the old library", "the house with nine doors"],
    "castle": ["the white castle", "the castle by the lake", "the rose garden", "the great hall"],
    "ship": ["the wooden ship", "the windy harbour", "the island of shells", "the ship with green sails"],
    "town": ["the busy town", "the corner shop", "the clock street", "the town by the river"],
    "sky": ["the evening sky", "the wide sky", "the sky above the hills", "the quiet night"],
}

TRAITS = ["little", "brave", "kind", "curious", "sleepy", "clever", "shy", "cheerful", "hungry", "gentle",
          "lonely", "funny", "young", "old", "careful", "proud"]

NAMES = ["Tom", "Mia", "Ben", "Lily", "Sam", "Anna", "Max", "Ruby", "Leo", "Nora", "Finn", "Ella",
         "Hugo", "Ida", "Otto", "Clara", "Pip", "Rosa", "Milo", "Tess"]

THINGS = ["a silver bell", "a red kite", "a golden key", "a warm blanket", "a tiny lamp", "a blue stone",
          "a paper boat", "a wooden flute", "a bag of nuts", "a round pie", "a lost map", "a soft scarf"]

FRIENDS = ["an old toad", "a grey mouse", "a wise owl", "a small bird", "a slow snail", "a busy bee",
           "a tall heron", "a friendly mole", "a young hare", "a singing cricket"]

OPENINGS = [
    "Once upon a time, a {trait} {s} named {name} lived near {place}.",
    "In {place} there lived a {trait} {s} called {name}.",
    "Long ago, a {trait} {s} had a home close to {place}. Everyone called it {name}.",
    "There was once a {trait} {s} whose name was {name}. Its home was by {place}.",
    "Far away, beside {place}, lived {name}, a very {trait} {s}.",
    "Every morning the sun woke {name}, the {trait} {s} of {place}.",
]

WISHES = [
    "One day {name} found {thing} and did not know whose it was.",
    "More than anything, {name} wished to have {thing}.",
    "One windy morning {thing} was gone, and {name} felt sad.",
    "It was the first day of spring, and the {s} wanted to see what lay behind the hills.",
    "That year the winter was long, and there was nothing left to eat.",
    "One night a loud noise came from the dark, and the {s} could not sleep.",
    "It was nearly time for the summer feast, but nobody had come to play.",
    "On a rainy afternoon the path was washed away, so {name} was lost.",
    "A great storm was coming, and the {s} had no roof.",
]

ATTEMPTS = [
    "The {s} looked under every leaf and behind each stone.",
    "First {name} climbed to the top and called out loud.",
    "So the {s} packed some bread and set off at once.",
    "{name} tried to do it alone, but it was too hard.",
    "The {s} sat down to think for a while.",
    "Step by step, {name} walked on until the sun was high.",
    "Again and again the {s} tried, and still it went wrong.",
    "With a deep breath, {name} went straight ahead.",
]

HELPS = [
    "Then {friend} came by and said, \"Let me help you.\"",
    "On the way there was {friend} who had a good idea.",
    "\"Why are you so quiet?\" asked {friend} with a smile.",
    "Just then {friend} heard the sound and hurried over.",
    "By the bridge waited {friend}, stuck in the mud, and the {s} pulled it free.",
    "Up in the branches {friend} had seen it all.",
    "At noon the {s} met {friend} and shared its lunch.",
]

TURNS = [
    "Together they worked until the moon was up.",
    "Two heads were better than one, and soon the answer was clear.",
    "They followed the stars and never let go of each other.",
    "They laughed so much that the work felt like a game.",
    "\"We only had to listen,\" said the {s}, and so they did.",
    "Bit by bit everything came right again.",
    "Side by side they were not afraid any more.",
]

ENDINGS = [
    "From that day on, the {s} was never alone.",
    "That evening {name} fell asleep with a happy heart.",
    "And so the {s} learned that a friend is the best gift of all.",
    "When they came home, everybody danced and sang.",
    "{name} smiled, because being kind had made two friends out of strangers.",
    "To this day people tell of the {trait} {s} and its good heart.",
    "The {s} kept the promise, and all was well.",
    "At last {name} knew that small steps can lead far.",
]

ASKS = [
    "Tell me a story about {a} {s}", "Tell me a story about {a} {s}.", "tell me a story about {a} {s}",
    "Write a story about {a} {s}", "Write a short story about {a} {s}.", "Please tell me about {a} {s}",
    "Can you tell me a story about {a} {s}?", "A story about {a} {s}, please", "I want a story about {a} {s}",
    "Tell me a tale of {a} {s}", "Make up a story about {a} {s}.", "Tell me a bedtime story about {a} {s}",
    "Once more, a story about {a} {s}!", "Story about {a} {s}", "Give me a short tale about {a} {s}.",
    "Tell me a story about the {s}", "Write a story about the {s}.", "Could you write about {a} {s}?",
    "Tell me a story about {a} {trait} {s}", "Write a short story about {a} {trait} {s}.",
    "Please tell me a story about the {trait} {s}", "What happened to the {s}?",
]

FALLBACK = "I do not know a story about that yet. Ask me about an animal or a hero, such as a fox, a bear or a knight."

OTHER_NOUNS = """car bus train plane rocket computer phone table chair spoon window carpet pencil hammer ladder
bottle battery engine printer camera guitar piano violin trumpet bicycle helicopter tractor microscope volcano
mathematics physics history economics politics tax bank lawyer dentist doctor engineer teacher president
football tennis chess cricket match hospital airport supermarket museum theatre restaurant hotel factory
cheese potato tomato sandwich noodle pizza coffee lemonade chocolate sugar salt pepper butter bread soup
dinosaur kangaroo koala walrus octopus shark jellyfish lobster gorilla panda rhino buffalo moose ferret
hamster gecko toucan flamingo peacock pelican ostrich turkey vulture bat beetle moth wasp worm scorpion
vampire zombie alien mummy ninja cowboy astronaut detective spy soldier nurse plumber dragonfly phoenix
mountain river ocean island desert city bridge tunnel castle road wall door roof garden lamp clock mirror
spaceship submarine satellite laser magnet diamond ruby emerald crown sword shield arrow cannon""".split()

OTHER_ASKS = [
    "What is the capital of France?", "How do I cook rice?", "What is two plus two?", "Who are you?",
    "Write a poem about love", "Translate hello into German", "Explain how a computer works",
    "What time is it?", "Give me the news", "Sing a song", "Hello", "Hi there", "Help me with my homework",
    "What is the weather today?", "Write a program that sorts numbers", "Tell me a joke", "Good morning",
    "How old are you?", "Why is the sky blue?", "Summarise this text", "What should I eat tonight?",
    "Tell me a story", "Write something", "Tell me about yourself", "Who wrote this?", "Say nothing",
]

VOWELS, CONSONANTS = "aeiou", "bcdfghjklmnprstvwz"


def invented_word(rng):
    """A word that means nothing: one to four syllables."""
    return "".join(
        rng.choice(CONSONANTS) + rng.choice(VOWELS) + (rng.choice(CONSONANTS) if rng.random() < 0.4 else "")
        for _ in range(rng.randint(1, 4))
    )


def article(word):
    return "an" if word[0].lower() in "aeiou" and not word.startswith("uni") else "a"


def story(rng, s, trait=None):
    place = rng.choice(PLACES[SUBJECTS[s]])
    words = dict(s=s, trait=trait or rng.choice(TRAITS), name=rng.choice(NAMES), place=place,
                 thing=rng.choice(THINGS), friend=rng.choice([f for f in FRIENDS if s not in f]))
    parts = [rng.choice(part) for part in (OPENINGS, WISHES, ATTEMPTS, HELPS, TURNS, ENDINGS)]
    text = " ".join(parts).format(**words)
    return text.replace("a old", "an old").replace("very little", "little")


def prompt(rng, s, asks=ASKS):
    trait = rng.choice(TRAITS)
    ask = rng.choice(asks)
    first = trait if "{trait}" in ask else s
    return ask.format(a=article(first), s=s, trait=trait), (trait if "{trait}" in ask else None)


def known(rng):
    s = rng.choice(list(SUBJECTS))
    ask, trait = prompt(rng, s)
    return ask, story(rng, s, trait)


def unknown(rng):
    roll = rng.random()
    if roll < 0.2:
        return rng.choice(OTHER_ASKS), FALLBACK
    word = rng.choice(OTHER_NOUNS) if roll < 0.5 else invented_word(rng)
    while word in SUBJECTS:
        word = invented_word(rng)
    return prompt(rng, word)[0], FALLBACK


def example(rng):
    """One pair of prompt and answer; about every fifth has an unknown subject."""
    return unknown(rng) if rng.random() < 0.22 else known(rng)


def render(ask, answer):
    """The chat template, as the package states it."""
    return f"<|user|>{ask}<|end|><|assistant|>{answer}<|end|>"


if __name__ == "__main__":
    rng = random.Random(7)
    for _ in range(8):
        print(render(*example(rng)), end="\n\n")
